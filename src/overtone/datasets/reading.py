"""One pass over a source: decode, set aside what cannot be read, keep, and take the fingerprint."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from overtone.datasets import cache as caching
from overtone.datasets.cache import Cache
from overtone.datasets.decoding import Content, Fit, Framing, decoded
from overtone.datasets.images import DecodedOnAccess, ImageDataset, Source
from overtone.errors import DataError, RecipeError
from overtone.npy import created, mapped

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

_ROWS_A_TASK = 64


class Reading(TypedDict, total=False):
    """How pictures are read; every image source takes these options.

    Attributes:
        limit: Only the first so many pictures.
        image_size: (height, width) or one number; None: all pictures must share one size.
        channels: 1 is grey, 3 RGB; None: 3 from files, and as they are from arrays.
        fit: `crop` (default) keeps the largest centred part of the right proportions, `squash` the whole.
        cache: Where decoded pictures are kept: `auto` (default), `memory`, `disk` or `none`.
        cache_dir: Folder for the disk cache.
        max_bad_fraction: How many pictures may be unreadable (default 0.01, rounded up: so one is
            tolerated in the smallest set; 0 tolerates none).
    """

    limit: int | None
    image_size: int | tuple[int, int] | None
    channels: int | None
    fit: Fit
    cache: Cache
    cache_dir: str | os.PathLike[str] | None
    max_bad_fraction: float


class _Pass(NamedTuple):
    fingerprint: str
    digests: NDArray[np.uint64]  # of the readable pictures
    bad: dict[int, str]


def read_images(source: Source, **options: Unpack[Reading]) -> ImageDataset:
    """Reads every picture of a source once, and makes the dataset of those that can be read.

    Args:
        source: Where the pictures come from.
        **options: See `Reading`.

    Returns:
        The dataset; its ids and labels speak of the readable pictures only.

    Raises:
        RecipeError: An option is wrong.
        DataError: No picture, too many unreadable ones, or several sizes and no `image_size`.
        DiskError: `cache="disk"` has no room.

    >>> pictures = [np.zeros((9, 9), np.uint8), b"damaged", np.zeros((7, 8), np.uint8)]
    >>> dataset = read_images(Source("three", ["a", "b", "c"], pictures.__getitem__), image_size=4)
    >>> dataset.ids, dataset.quarantined[0][0]
    (['a', 'c'], 'b')
    """
    unknown = set(options) - set(Reading.__annotations__)
    if unknown:
        raise RecipeError(
            f"unknown option {sorted(unknown)[0]!r}; there are {', '.join(Reading.__annotations__)}"
        )
    source = _limited(source, options.get("limit"))
    framing = Framing.of(options.get("image_size"), options.get("channels"), options.get("fit", "crop"))
    tolerated = options.get("max_bad_fraction", 0.01)
    folder = _checked(source, options.get("cache", "auto"), options.get("cache_dir"), framing)

    kept = _reused(source, folder, tolerated)
    if kept is not None:
        return kept
    return _read(source, framing, options.get("cache", "auto"), folder, tolerated)


def _reused(source: Source, folder: Path | None, tolerated: float) -> ImageDataset | None:
    kept = caching.opened(folder) if folder is not None else None
    if kept is None:
        return None
    logger.info("%s: %s images reused from the cache %s", source.name, f"{len(source.ids):,}", folder)
    _tolerate(source, kept.bad, tolerated)
    return _dataset(source, kept.images, _Pass(kept.fingerprint, kept.digests, kept.bad))


def _read(
    source: Source, framing: Framing, cache: Cache, folder: Path | None, tolerated: float
) -> ImageDataset:
    start = time.perf_counter()
    Image.init()  # all readers at once: doing it on first use is not safe in threads
    first = _first(source, framing)
    shape = (len(source.ids), *first.shape)
    n_bytes = math.prod(shape) * first.itemsize
    in_memory = cache == "memory" or caching.fits_memory(cache, n_bytes)
    if folder is not None and not in_memory:
        with caching.turn(folder):
            # By another process in the meantime, whose copy may also have taken the room for ours.
            if (kept := _reused(source, folder, tolerated)) is not None:
                return kept
            if caching.place(cache, n_bytes, folder) == "disk":
                done = _to_disk(source, framing, first, folder, tolerated)
                _say(source, first, done, f"kept in {folder}", start)
                return _dataset(source, mapped(folder / "images.npy"), done)
    images = np.empty(shape, first.dtype) if in_memory else None
    done = _decode(source, framing, first, images, tolerated)
    _say(source, first, done, "kept in memory" if in_memory else "not kept: again at each access", start)
    on_access = DecodedOnAccess(source, framing, shape, first.dtype)
    return _dataset(source, on_access if images is None else images, done)


def _say(source: Source, first: NDArray[Any], done: _Pass, where: str, start: float) -> None:
    n, form = len(source.ids), "x".join(map(str, first.shape))
    logger.info(
        f"{source.name}: {n - len(done.bad):,} images of {form} decoded and {where} "
        f"({n * first.nbytes / 1e6:.0f} MB, {time.perf_counter() - start:.1f} s)"
    )


def _to_disk(source: Source, framing: Framing, first: NDArray[Any], folder: Path, tolerated: float) -> _Pass:
    with caching.beside(folder) as partial:
        file = created(partial / "images.npy", (len(source.ids), *first.shape), first.dtype)
        done = _decode(source, framing, first, file, tolerated)
        caching.closed(partial, file, *done)
    return done


def _limited(source: Source, limit: int | None) -> Source:
    if limit is None or limit >= len(source.ids):
        return source
    if limit < 1:
        raise RecipeError(f"limit={limit}: give at least 1, or None for all")
    labels = {name: codes[:limit] for name, codes in source.labels.items()}
    return replace(source, ids=source.ids[:limit], labels=labels)


def _checked(
    source: Source, cache: Cache, cache_dir: str | os.PathLike[str] | None, framing: Framing
) -> Path | None:
    """The folder of the disk cache, if there is to be one."""
    if not len(source.ids):
        raise DataError(f"{source.name}: no images")
    if len(set(source.ids)) != len(source.ids):
        twice = Counter(source.ids).most_common(1)[0][0]
        raise DataError(f"{source.name}: the id {twice!r} occurs twice; ids must differ")
    if cache not in ("auto", "memory", "disk", "none"):
        raise RecipeError(f"cache={cache!r}: give 'auto', 'memory', 'disk' or 'none'")
    if cache == "disk" and (cache_dir is None or source.stamp is None):
        missing = "needs cache_dir" if cache_dir is None else f"cannot tell when {source.name} has changed"
        raise RecipeError(f"cache='disk' {missing}; give it, or choose 'memory' or 'none'")
    if cache in ("memory", "none") or cache_dir is None or source.stamp is None:
        return None
    key = repr((2, source.stamp, len(source.ids), framing)).encode()
    return Path(cache_dir) / f"images-{hashlib.blake2b(key, digest_size=16).hexdigest()}"


def _first(source: Source, framing: Framing) -> NDArray[Any]:
    """The first picture that can be read decides shape and type for all."""
    bad: dict[int, str] = {}
    for row in range(len(source.ids)):
        try:
            return decoded(source.read(row), framing)
        except Exception as error:
            bad[row] = _reason(error)
    raise DataError(f"{source.name}: none of the {len(bad):,} images can be read: {_named(source, bad)}")


def _decode(
    source: Source, framing: Framing, first: NDArray[Any], store: NDArray[Any] | None, tolerated: float
) -> _Pass:
    def task(start: int) -> list[bytes | str]:
        return [row(i) for i in range(start, min(start + _ROWS_A_TASK, len(source.ids)))]

    def row(i: int) -> bytes | str:
        try:
            content = source.read(i)
            image = decoded(content, framing)
        except Exception as error:  # Pillow raises half a dozen kinds on a damaged file: all are recorded
            return _reason(error)
        if (image.shape, image.dtype) != (first.shape, first.dtype):
            raise _differs(source, i, image, first)
        if store is not None:
            store[i] = image
        return _digest(content)

    outcomes = list(chain.from_iterable(_mapped(task, len(source.ids), source.parallel)))
    bad = {i: outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, str)}
    _tolerate(source, bad, tolerated)
    fingerprint = _fingerprint(source.ids, outcomes, repr((first.shape, str(first.dtype), framing.fit)))
    short = b"".join(outcome[:8] for outcome in outcomes if isinstance(outcome, bytes))
    return _Pass(fingerprint, np.frombuffer(short, "<u8"), bad)


def _mapped(task: Any, n: int, parallel: bool) -> Iterator[list[bytes | str]]:
    starts = range(0, n, _ROWS_A_TASK)
    if not parallel:
        yield from map(task, starts)
        return
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(task, starts)


def _digest(content: Content) -> bytes:
    if isinstance(content, np.ndarray):
        content = repr((content.shape, str(content.dtype))).encode() + content.tobytes()
    elif isinstance(content, Image.Image):
        content = repr((content.size, content.mode)).encode() + content.tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def _fingerprint(ids: Sequence[str], outcomes: Sequence[bytes | str], form: str) -> str:
    """Of the readable pictures: what they are called, the bytes they were read from, and their form.

    The bytes as stored, not as decoded: two versions of a JPEG decoder differ in the last bit.
    """
    digest = hashlib.blake2b(form.encode(), digest_size=16)
    for name, content in zip(ids, outcomes, strict=True):
        if isinstance(content, bytes):
            digest.update(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest())
            digest.update(content)
    return digest.hexdigest()


def _tolerate(source: Source, bad: dict[int, str], tolerated: float) -> None:
    if not bad:
        return
    count = f"{len(bad):,} of {len(source.ids):,} images cannot be read"
    if len(bad) > math.ceil(tolerated * len(source.ids)):
        raise DataError(
            f"{source.name}: {count}, more than max_bad_fraction={tolerated:g}: {_named(source, bad)}. "
            "Repair or remove them, or raise max_bad_fraction"
        )
    logger.warning("%s: %s and are left out: %s", source.name, count, _named(source, bad))


def _dataset(source: Source, images: Any, done: _Pass) -> ImageDataset:
    fingerprint, digests, bad = done
    rows = np.array([row for row in range(len(source.ids)) if row not in bad], dtype=np.int64)
    return ImageDataset(
        images,
        [source.ids[row] for row in rows],
        {name: codes[rows] for name, codes in source.labels.items()},
        dict(source.label_names),
        fingerprint,
        rows=rows,
        digests=digests,
        quarantined=[(source.ids[row], reason) for row, reason in sorted(bad.items())],
    )


def _differs(source: Source, i: int, image: NDArray[Any], first: NDArray[Any]) -> DataError:
    seen, expected = (f"{'x'.join(map(str, a.shape))} {a.dtype}" for a in (image, first))
    if len(image) != len(first):
        advice = "give channels (1 is grey, 3 is RGB)"
    elif image.shape != first.shape:
        advice = "give image_size=(height, width)"
    else:
        advice = "save all with the same depth"
    return DataError(f"{source.name}: {source.ids[i]!r} is {seen}, others are {expected}; {advice}")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _named(source: Source, bad: dict[int, str]) -> str:
    """The first three, and how often each reason occurs that several share."""
    few = "; ".join(f"{source.ids[row]!r} ({reason})" for row, reason in sorted(bad.items())[:3])
    if len(bad) <= 3:
        return few
    shared = [f"{count:,} x {reason}" for reason, count in Counter(bad.values()).most_common(5) if count > 1]
    return f"{few} and {len(bad) - 3:,} more" + (f" (in all {', '.join(shared)})" if shared else "")
