"""Overtone: contrastive encoders that miss nothing.

Importing it imports nothing else; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overtone import datasets as datasets
    from overtone.clustering import next_partition as next_partition
    from overtone.diagnosing import diagnose as diagnose
    from overtone.embedding import embed as embed
    from overtone.encoders import Encoder as Encoder
    from overtone.encoders import ImageEncoder as ImageEncoder
    from overtone.encoders import build_encoder as build_encoder
    from overtone.fitting import fit as fit
    from overtone.integrating import integrate as integrate
    from overtone.integration import JointEncoder as JointEncoder
    from overtone.integration import load as load
    from overtone.methods import SimCLR as SimCLR
    from overtone.objectives import NTXent as NTXent
    from overtone.partition import Partition as Partition
    from overtone.report.diagnosis import Diagnosis as Diagnosis
    from overtone.results import evaluate as evaluate
    from overtone.sampling import CellBatchSampler as CellBatchSampler
    from overtone.stages import StageSpec as StageSpec
    from overtone.views import ImageViews as ImageViews

__version__ = "0.1.0"

_HOMES = {
    "CellBatchSampler": "sampling",
    "Diagnosis": "report.diagnosis",
    "Encoder": "encoders",
    "ImageEncoder": "encoders",
    "ImageViews": "views",
    "JointEncoder": "integration",
    "NTXent": "objectives",
    "Partition": "partition",
    "SimCLR": "methods",
    "StageSpec": "stages",
    "build_encoder": "encoders",
    "diagnose": "diagnosing",
    "embed": "embedding",
    "evaluate": "results",
    "fit": "fitting",
    "integrate": "integrating",
    "load": "integration",
    "next_partition": "clustering",
}


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return import_module("overtone.datasets")
    if name not in _HOMES:
        raise AttributeError(f"module 'overtone' has no attribute {name!r}")
    return getattr(import_module(f"overtone.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "datasets"])
