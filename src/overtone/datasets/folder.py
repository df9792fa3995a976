"""A folder of image files, with labels from its subfolders or from a CSV file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.labels import Labels
from overtone.datasets.reading import Reading, read_images
from overtone.datasets.tables import read_labels
from overtone.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def image_folder(
    root: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    **options: Unpack[Reading],
) -> ImageDataset:
    """A dataset from all image files in a folder and its subfolders, in the order of their paths.

    Where every image lies in a subfolder and there are at least two, the first-level subfolders are
    the attribute `class`. A `metadata.csv` in the folder, or the CSV file `labels`, adds its columns
    (see `tables.read_labels`); one named `class` goes before the subfolders. Ids are paths from the
    folder. Names that begin with a dot are passed over.

    Args:
        root: The folder.
        labels: A CSV file with a column `file_name` that holds ids.
        **options: See `Reading`.

    Raises:
        DataError: No such folder, no images in it, a link that leaves it, or a wrong CSV file.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30)).save(f"{folder}/a.png")
    ...     dataset = image_folder(folder, image_size=32)
    >>> dataset.ids, dataset.image_shape
    (['a.png'], (3, 32, 32))
    """
    return read_images(folder_source(root, labels), **options)


def folder_source(root: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None) -> Source:
    """The pictures of `image_folder`, not yet read."""
    folder = Path(root)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what} (in folder {Path.cwd()}); expected a folder of images")
    ids = sorted(files_in(folder, EXTENSIONS))
    if not ids:
        raise DataError(f"{folder}: no images; looked in it and its subfolders for *{', *'.join(EXTENSIONS)}")
    found = _classes(ids)
    table = Path(labels) if labels is not None else folder / "metadata.csv"
    if labels is not None or table.is_file():
        more = read_labels(table, ids)
        found = Labels({**found.codes, **more.codes}, {**found.names, **more.names})
    return Source(
        folder.resolve().name,
        ids,
        partial(_bytes, folder, ids),
        found.codes,
        found.names,
        stamp_of(folder, ids),
    )


def _bytes(folder: Path, ids: Sequence[str], row: int) -> bytes:
    return read_file(folder / ids[row])


def read_file(path: Path, most: int = -1) -> bytes:
    """The content of a file, or its beginning.

    Raises:
        ValueError: It is no file: a pipe would be waited for, and a device never ends.
    """
    if not path.is_file():
        raise ValueError("no such file")
    with path.open("rb") as file:
        return file.read(most)


def files_in(folder: Path, extensions: tuple[str, ...]) -> Iterator[str]:
    """Paths of the files of some kinds, from the folder; linked subfolders are not entered.

    Raises:
        DataError: A link leaves the folder, or a part of it cannot be listed.
    """
    inside = folder.resolve()
    for here, subfolders, files in os.walk(folder, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in [*subfolders, *files]:
            path = Path(here, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise DataError(
                    f"{folder}: {str(path)!r} is a link that leaves it; put the file itself there"
                )
        for name in files:
            if name.lower().endswith(extensions) and not name.startswith("."):
                yield Path(here, name).relative_to(folder).as_posix()


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); see its permissions") from error


def _classes(ids: Sequence[str]) -> Labels:
    first = [name.partition("/")[0] if "/" in name else None for name in ids]
    if None in first or len(set(first)) < 2:
        return Labels({}, {})
    names = sorted(set(filter(None, first)))
    code_of = {name: code for code, name in enumerate(names)}
    codes = np.array([code_of[name] for name in first if name], dtype=np.int64)
    return Labels({"class": codes}, {"class": names})


def stamp_of(folder: Path, ids: Iterable[str]) -> str:
    """Changes when one of the files is replaced, grows or is touched."""
    stats = [(name, *_state(folder / name)) for name in ids]
    return hashlib.blake2b(repr((str(folder.resolve()), stats)).encode(), digest_size=16).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # reading it will say why
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
