"""A folder of image files, with labels from its subfolders or from a CSV file."""

from __future__ import annotations

import hashlib
import os
import stat
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
    ids = sorted(files_in(folder, EXTENSIONS, follow_links))
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
    return read_picture(folder / ids[row])


def read_picture(path: Path) -> bytes:
    """The content of a file that should hold a picture.

    Raises:
        ValueError: It is no file, too large, or in disguise.
        OSError: It cannot be read.
    """
    return undisguised(read_file(path), path.suffix.lower())


def read_file(path: Path, most: int | None = None) -> bytes:
    """The content of a file, of no more than a gigabyte; or its first bytes, if fewer are asked for.

    Raises:
        ValueError: It is no file (a pipe would be waited for, and a device never ends), or too large.
        OSError: It cannot be read.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ValueError("no such file") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("no regular file")
    if most is None and found.st_size > _MAX_BYTES:
        raise ValueError(f"{found.st_size:,} bytes, more than {_MAX_BYTES:,}")
    with path.open("rb") as file:
        return file.read(found.st_size if most is None else most)


def undisguised(content: bytes, extension: str) -> bytes:
    """The content of a picture, unless it is TIFF by another name.

    Raises:
        ValueError: It is.
    """
    if content.startswith(_TIFF) and extension not in (".tif", ".tiff"):
        raise ValueError(f"a TIFF file named {extension}")
    return content


def files_in(folder: Path, extensions: tuple[str, ...], follow_links: bool) -> Iterator[str]:
    """Paths of the files of some kinds, from the folder, in no order.

    Args:
        folder: Where to look, in its subfolders too.
        extensions: Of the files, in lower case.
        follow_links: Take links that leave the folder, and enter linked subfolders.

    Raises:
        DataError: A link leaves the folder without `follow_links`, or a part of it cannot be listed.
    """
    for here, subfolders, files in walked(folder, follow_links):
        if not follow_links:
            refuse_leaving((Path(here, name) for name in (*subfolders, *files)), folder)
        for name in files:
            if name.lower().endswith(extensions) and not name.startswith("."):
                yield Path(here, name).relative_to(folder).as_posix()


def walked(folder: Path, follow_links: bool) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, without hidden folders and circles; what is taken out of the subfolders is not entered.

    Raises:
        DataError: A part of it cannot be listed.
    """
    entered = set()
    for here, subfolders, files in os.walk(folder, onerror=_refuse, followlinks=follow_links):
        if (place := os.path.realpath(here)) in entered:  # by a link that leads in a circle
            subfolders.clear()
            continue
        entered.add(place)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield here, subfolders, files


def refuse_leaving(paths: Iterable[Path], folder: Path) -> None:
    """Raises a `DataError` if one of some paths is a link to something outside a folder."""
    for path in paths:
        if leaves(path, folder):
            raise DataError(
                f"{folder}: {str(path)!r} is a link that leaves it; put the file itself there, or, if "
                "you know where all its links lead, give follow_links=True (data.follow_links=true)"
            )


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


def stamp_of(folder: Path, ids: Iterable[str]) -> str:
    """Changes when one of the files is replaced, grows or is touched."""
    stats = [(name, *_size_and_time(folder / name)) for name in ids]
    return hashlib.blake2b(repr((str(folder.resolve()), stats)).encode(), digest_size=16).hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError):  # a link that leads nowhere, a name with NUL; reading it will say so
        return -1, -1
    return found.st_size, found.st_mtime_ns
