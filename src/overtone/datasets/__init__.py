"""Where samples come from. Every function here makes an `overtone.contracts.Dataset`."""

from overtone.datasets.arrays import arrays
from overtone.datasets.blind_pairs import Pair
from overtone.datasets.captioned import Captioned, read_captioned
from overtone.datasets.captioned_scenes import captioned_scenes, scene_pairs
from overtone.datasets.captions import captions
from overtone.datasets.composite import composite
from overtone.datasets.digit_bags import Bags, digit_bags
from overtone.datasets.digits import digits
from overtone.datasets.digits_on_patches import BackgroundAndTarget, digits_on_patches
from overtone.datasets.folder import image_folder
from overtone.datasets.genomes import Genomes, genomes
from overtone.datasets.image_table import ImageTable, image_table
from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.netlists import Netlists, netlists
from overtone.datasets.opening import open_dataset, open_source
from overtone.datasets.pairs import pairs
from overtone.datasets.parquet import hugging_face, parquet
from overtone.datasets.reading import read_images
from overtone.datasets.subset import Subset, balanced, subset
from overtone.datasets.tones import Tones, tones
from overtone.datasets.torch_dataset import torch_dataset
from overtone.datasets.trifeature import trifeature
from overtone.datasets.webdataset import webdataset
from overtone.datasets.with_label import with_label

__all__ = [
    "BackgroundAndTarget",
    "Bags",
    "Captioned",
    "Genomes",
    "ImageDataset",
    "ImageTable",
    "Netlists",
    "Pair",
    "Source",
    "Subset",
    "Tones",
    "arrays",
    "balanced",
    "captioned_scenes",
    "captions",
    "composite",
    "digit_bags",
    "digits",
    "digits_on_patches",
    "genomes",
    "hugging_face",
    "image_folder",
    "image_table",
    "netlists",
    "open_dataset",
    "open_source",
    "pairs",
    "parquet",
    "read_captioned",
    "read_images",
    "scene_pairs",
    "subset",
    "tones",
    "torch_dataset",
    "trifeature",
    "webdataset",
    "with_label",
]
