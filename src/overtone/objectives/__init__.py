"""One file per formula. An objective sees a batch and which pairs may be negatives, nothing else."""

from overtone.objectives.nt_xent import NTXent, contrastive_accuracy, nt_xent

__all__ = ["NTXent", "contrastive_accuracy", "nt_xent"]
