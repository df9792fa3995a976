"""Contrastive methods: an encoder, a head, an objective and a step, one screen each."""

from overtone.methods.byol import BYOL
from overtone.methods.clip import CLIP
from overtone.methods.moco import MoCo, MoCoV3
from overtone.methods.siglip import SigLIP
from overtone.methods.simclr import SimCLR
from overtone.methods.supcon import SupCon

__all__ = ["BYOL", "CLIP", "MoCo", "MoCoV3", "SigLIP", "SimCLR", "SupCon"]
