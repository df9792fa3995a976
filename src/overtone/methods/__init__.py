"""Contrastive methods: an encoder, a head, an objective and a step, one screen each."""

from overtone.methods.clip import CLIP
from overtone.methods.siglip import SigLIP
from overtone.methods.simclr import SimCLR

__all__ = ["CLIP", "SigLIP", "SimCLR"]
