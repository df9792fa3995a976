"""One door to whatever lies at a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from overtone.datasets.arrays import arrays, arrays_source
from overtone.datasets.captioned import Captioned, read_captioned, with_captions
from overtone.datasets.captions import captions, captions_source
from overtone.datasets.folder import EXTENSIONS, folder_source, image_folder, walked
from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.pairs import pairs, pairs_source
from overtone.datasets.parquet import parquet, parquet_source
from overtone.datasets.reading import Reading, read_images
from overtone.datasets.subset import drawn
from overtone.datasets.texts import Captions
from overtone.datasets.webdataset import webdataset, webdataset_source
from overtone.errors import DataError, RecipeError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Reader(NamedTuple):
    """What makes a dataset of a path, and what tells how many pictures there are without reading them."""

    dataset: Callable[..., ImageDataset | Captioned]
    source: Callable[..., Source | tuple[Source, Captions | None]]


_READERS = {
    "parquet": _Reader(parquet, parquet_source),
    "arrays": _Reader(arrays, arrays_source),
    "folder": _Reader(image_folder, folder_source),
    "captions": _Reader(captions, captions_source),
    "pairs": _Reader(pairs, pairs_source),
    "webdataset": _Reader(webdataset, webdataset_source),
}
KINDS_OF_FILES = tuple(_READERS)


def open_dataset(path: str | os.PathLike[str], **options: Any) -> ImageDataset | Captioned:
    """The dataset at a path, with texts where there are some beside the pictures.

    A .parquet, .npy or .npz file, a .csv or .tsv file of paths and captions, a .tar file or a pattern of
    some, or a folder: of tars, of .parquet files, of images with a .txt file beside each, or of images.

    Args:
        path: Where it lies.
        **options: Those of `parquet`, `arrays`, `captions`, `webdataset`, `pairs` or `image_folder`,
            whichever reads it.

    Raises:
        DataError: Nothing there is known.

    >>> open_dataset("nowhere.parquet")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    overtone.errors.DataError: nowhere.parquet: no such file ...
    """
    place = Path(path)
    return _READERS[_kind(place, options.get("follow_links", False))].dataset(place, **options)


def open_some(
    path: str | os.PathLike[str],
    most: int,
    *,
    where: Mapping[str, Any],
    seed: int = 0,
    **options: Unpack[Reading],
) -> tuple[ImageDataset | Captioned, int]:
    """At most so many samples of the dataset at a path, a keyed draw, and how many there are.

    Only those drawn are read.

    Args:
        path: As for `open_dataset`.
        most: How many.
        where: Options that say what lies where, as for `open_captions`; `labels`.
        seed: Address of the draw, with "drawn".
        **options: See `Reading`.

    Raises:
        DataError, RecipeError: As `open_captions`, `read_images` and `read_captioned`.
    """
    source, found = open_captions(path, **where)
    count = len(source.ids)
    if most < count:
        rows = drawn(count, most, seed)
        source, found = source.take(rows), None if found is None else found.take(rows)
    if found is None:
        return read_images(source, **options), count
    return read_captioned(source, found, **options), count


def open_source(path: str | os.PathLike[str], kind: str | None = None, **options: Any) -> Source:
    """The pictures at a path, not yet read: how many there are, and the content of each.

    Args, Raises: As `open_captions`.
    """
    source, found = open_captions(path, kind, **options)
    return source if found is None else with_captions(source, found)


def places(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options of a reader those that `open_captions` takes: they say where things lie.

    >>> places({"image": "img", "image_size": 32, "labels": "of.csv"})
    {'image': 'img'}
    """
    elsewhere = {"labels", *Reading.__annotations__}
    return {name: value for name, value in options.items() if name not in elsewhere}


def open_captions(
    path: str | os.PathLike[str], kind: str | None = None, **options: Any
) -> tuple[Source, Captions | None]:
    """The pictures at a path, not yet read, and the texts where there are some.

    Args:
        path: As for `open_dataset`.
        kind: One of `KINDS_OF_FILES`; by default what lies there decides.
        **options: Those of the reader that say where texts are: `text`, `image`, `root`, ...; `follow_links`.

    Raises:
        DataError: Nothing there is known.
        RecipeError: An option is none of the reader's.
    """
    place = Path(path)
    kind = kind or _kind(place, options.get("follow_links", False))
    known = signature(_READERS[kind].source).parameters
    if unknown := [name for name in options if name not in known]:
        raise RecipeError(
            f"{unknown[0]}={options[unknown[0]]!r}: {path} is read as `{kind}`, which takes no such"
        )
    found = _READERS[kind].source(place, **options)
    return (found, None) if isinstance(found, Source) else found


def _kind(place: Path, follow_links: bool) -> str:
    if place.is_dir():
        return _kind_of_folder(place, follow_links)
    kinds = {
        ".parquet": "parquet",
        ".npy": "arrays",
        ".npz": "arrays",
        ".csv": "captions",
        ".tsv": "captions",
        ".tar": "webdataset",
    }
    if place.suffix in kinds:
        return kinds[place.suffix]
    what = "is no such file" if place.exists() else "does not exist"
    raise DataError(
        f"{place} {what} (in folder {Path.cwd()}); expected a .parquet, .npy, .npz, .tar, .csv "
        "or .tsv file, or a folder of .tar files, of .parquet files, or of images "
        f"(*{', *'.join(EXTENSIONS)}) with or without a .txt file beside each"
    )


def _kind_of_folder(folder: Path, follow_links: bool) -> str:
    """By the first file that decides: img2dataset puts .parquet files beside what it downloads."""
    tables = False
    for _, subfolders, files in walked(folder, follow_links):
        subfolders.sort()
        parts = [os.path.splitext(name) for name in files if not name.startswith(".")]
        kinds = {extension.lower() for _, extension in parts}
        if ".tar" in kinds:
            return "webdataset"
        if ".txt" in kinds:
            texts = {stem for stem, extension in parts if extension.lower() == ".txt"}
            if any(stem in texts for stem, extension in parts if extension.lower() in EXTENSIONS):
                return "pairs"
        tables = tables or ".parquet" in kinds
    return "parquet" if tables else "folder"
