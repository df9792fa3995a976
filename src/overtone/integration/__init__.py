"""Many stages as one encoder (cross-stage representation integration; Zhang et al., ECCV 2024, section 3)."""

from overtone.integration.distilled import Distillation
from overtone.integration.joint import JointEncoder, concatenated, load
from overtone.integration.projected import moments, projection

__all__ = ["Distillation", "JointEncoder", "concatenated", "load", "moments", "projection"]
