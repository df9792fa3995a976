"""Where samples come from. Every function here makes an `overtone.contracts.Dataset`."""

from overtone.datasets.arrays import arrays
from overtone.datasets.captioned import Captioned
from overtone.datasets.composite import composite
from overtone.datasets.digits import digits
from overtone.datasets.folder import image_folder
from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.opening import open_dataset, open_source
from overtone.datasets.parquet import hugging_face, parquet
from overtone.datasets.reading import read_images
from overtone.datasets.subset import Subset, balanced, subset
from overtone.datasets.tones import Tones, tones
from overtone.datasets.torch_dataset import torch_dataset
from overtone.datasets.trifeature import trifeature

__all__ = [
    "Captioned",
    "ImageDataset",
    "Source",
    "Subset",
    "Tones",
    "arrays",
    "balanced",
    "composite",
    "digits",
    "hugging_face",
    "image_folder",
    "open_dataset",
    "open_source",
    "parquet",
    "read_images",
    "subset",
    "tones",
    "torch_dataset",
    "trifeature",
]
