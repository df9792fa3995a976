"""One file per formula. An objective sees a batch and which pairs may be negatives, nothing else."""

from overtone.objectives.adaptive_temperature import AdaptiveTemperature, adaptive_temperature
from overtone.objectives.dcl import DCL, dcl
from overtone.objectives.hard_negatives import HardNegatives, hard_negatives
from overtone.objectives.ifm import IFM, ifm
from overtone.objectives.nt_xent import NTXent, contrastive_accuracy, nt_xent, nt_xent_both_ways

__all__ = [
    "AdaptiveTemperature",
    "DCL",
    "HardNegatives",
    "IFM",
    "NTXent",
    "adaptive_temperature",
    "contrastive_accuracy",
    "dcl",
    "hard_negatives",
    "ifm",
    "nt_xent",
    "nt_xent_both_ways",
]
