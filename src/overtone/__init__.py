"""Overtone: contrastive encoders that miss nothing."""

__version__ = "0.1.0"
