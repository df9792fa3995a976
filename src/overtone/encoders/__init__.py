"""Encoders: modules that take a batch and return its embeddings, (B, D).

Any `nn.Module` becomes one with `as_encoder`; `build_encoder` makes one by name.
"""

from __future__ import annotations

from overtone.encoders.building import ENCODERS, FAMILIES, build_encoder, build_module
from overtone.encoders.encoder import BatchEncoder, Encoder, ImageEncoder, as_encoder
from overtone.encoders.files import load_encoder, load_weights, save_encoder
from overtone.encoders.freezing import trainable
from overtone.encoders.graphs import GraphEncoder
from overtone.encoders.halves import Halves
from overtone.encoders.image_table import ImageTableEncoder
from overtone.encoders.lora import add_lora, merge_lora
from overtone.encoders.patch_towers import PatchTowers
from overtone.encoders.random_weights import with_random_weights
from overtone.encoders.sequences import SequenceTransformer
from overtone.encoders.series_transformer import SeriesTransformer
from overtone.encoders.small import SeriesEncoder, resnet18_cifar, small_cnn
from overtone.encoders.two_towers import TwoTowerEncoder, WordBag, small_clip

__all__ = [
    "BatchEncoder",
    "ENCODERS",
    "Encoder",
    "FAMILIES",
    "GraphEncoder",
    "Halves",
    "ImageEncoder",
    "ImageTableEncoder",
    "PatchTowers",
    "SequenceTransformer",
    "SeriesEncoder",
    "SeriesTransformer",
    "TwoTowerEncoder",
    "WordBag",
    "add_lora",
    "as_encoder",
    "build_encoder",
    "build_module",
    "load_encoder",
    "load_weights",
    "merge_lora",
    "resnet18_cifar",
    "save_encoder",
    "small_clip",
    "small_cnn",
    "trainable",
    "with_random_weights",
]
