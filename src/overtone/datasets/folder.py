"""A folder of image files, with labels from its subfolders or from a CSV file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.labels import Labels
from overtone.datasets.reading import Reading, read_images
from overtone.datasets.tables import read_labels
from overtone.errors import DataError
from overtone.links import leaves
from overtone.text import utf8

if TYPE_CHECKING:
    from typing_extensions import Unpack

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_MAX_BYTES = 1 << 30  # more than the largest picture takes that is decoded, at eight bytes a pixel
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def image_folder(
    root: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
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
        follow_links: Take links that leave the folder, and enter linked subfolders.
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
    return read_images(folder_source(root, labels, follow_links=follow_links), **options)


def folder_source(
    root: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    follow_links: bool = False,
) -> Source:
    """The pictures of `image_folder`, not yet read."""
    folder = Path(root)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what} (in folder {Path.cwd()}); expected a folder of images")
    ids = sorted(_found(folder, follow_links))
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
        _stamp(folder, ids),
    )


def _bytes(folder: Path, ids: Sequence[str], row: int) -> bytes:
    path = folder / ids[row]
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for without end
        raise ValueError("no regular file")
    if found.st_size > _MAX_BYTES:
        raise ValueError(f"{found.st_size:,} bytes, more than {_MAX_BYTES:,}")
    content = path.read_bytes()
    if content.startswith(_TIFF) and path.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"a TIFF file named {path.suffix}")
    return content


def _found(folder: Path, follow_links: bool) -> Iterator[str]:
    """Paths of the images, from the folder."""
    entered = set()
    for here, subfolders, files in os.walk(folder, onerror=_refuse, followlinks=follow_links):
        if (place := os.path.realpath(here)) in entered:  # by a link that leads in a circle
            subfolders.clear()
            continue
        entered.add(place)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in () if follow_links else (*subfolders, *files):
            if leaves(path := Path(here, name), folder):
                raise DataError(
                    f"{folder}: {str(path)!r} is a link that leaves it; put the file itself there, or, if "
                    "you know where all its links lead, give follow_links=True (data.follow_links=true)"
                )
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
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
    return Labels({"class": codes}, {"class": list(map(utf8, names))})


def _stamp(folder: Path, ids: Sequence[str]) -> str:
    stats = [(name, *_size_and_time(folder / name)) for name in ids]
    return hashlib.blake2b(repr((str(folder.resolve()), stats)).encode(), digest_size=16).hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # a link that leads nowhere; reading it will say so
        return -1, -1
    return found.st_size, found.st_mtime_ns
