"""Pictures with a text each."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from overtone.contracts import Batch, Dataset, Sample
from overtone.datasets.decoding import Content
from overtone.datasets.images import Source
from overtone.datasets.reading import Reading, read_images
from overtone.datasets.texts import LONGEST, Captions
from overtone.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)


class Captioned:
    """A dataset whose samples have a `text` besides; attributes as in `contracts.Dataset`.

    A sample is `{"index": int, "image": (C, H, W), "text": str}`; in a batch the texts are a list.

    Args:
        dataset: N samples.
        texts: N strings.
        quarantined: (id, reason) of what was left out.
        truncated: Ids of the samples of whose text only the beginning is kept.

    Raises:
        DataError: There are not N texts, or one is empty.

    >>> from overtone.datasets import arrays
    >>> pairs = Captioned(arrays(np.zeros((2, 8, 8, 3), np.uint8)), ["a cat", "a dog"])
    >>> pairs[1]["text"], pairs.collate([pairs[0], pairs[1]])["text"]
    ('a dog', ['a cat', 'a dog'])
    """

    def __init__(
        self,
        dataset: Dataset,
        texts: Sequence[str],
        *,
        quarantined: Sequence[tuple[str, str]] = (),
        truncated: Sequence[str] = (),
    ) -> None:
        if len(texts) != len(dataset):
            raise DataError(f"texts: {len(texts):,} of {len(dataset):,} samples; expected one a sample")
        if empty := [dataset.ids[row] for row, text in enumerate(texts) if not text.strip()]:
            raise DataError(
                f"texts: {len(empty):,} of {len(texts):,} are empty, first that of {empty[0]!r}; leave these "
                "samples out"
            )
        self.modality = dataset.modality
        self.ids: Sequence[str] = dataset.ids
        self.labels: Mapping[str, NDArray[np.int64]] = dataset.labels
        self.label_names = dataset.label_names
        self.texts = texts
        self.quarantined = quarantined
        self.truncated = truncated
        digest = hashlib.blake2b(dataset.fingerprint.encode(), digest_size=16)
        short = bytearray()
        for text in texts:
            of_text = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            digest.update(of_text)
            short += of_text[:8]
        self.fingerprint = digest.hexdigest()
        of_images = getattr(dataset, "digests", None)
        self.digests: NDArray[np.uint64] | None = None
        if of_images is not None:  # an edited text is an edited sample
            self.digests = of_images ^ np.frombuffer(short, "<u8")
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Sample:
        return {**self._dataset[index], "text": self.texts[index]}

    def collate(self, samples: list[Sample]) -> Batch:
        """As the dataset's, and `text`: a list of B strings."""
        return {**self._dataset.collate(samples), "text": [sample["text"] for sample in samples]}


def read_captioned(source: Source, captions: Captions, **options: Unpack[Reading]) -> Captioned:
    """Reads every picture of a source once, and makes the dataset of the pairs that can be used.

    Args:
        source: Where the pictures come from.
        captions: Their texts.
        **options: See `Reading`; `max_bad_fraction` counts pairs that lack either.

    Raises:
        DataError: As `read_images`.

    >>> source = Source("two", ["a", "b"], np.zeros((2, 8, 8), np.uint8).__getitem__)
    >>> pairs = read_captioned(source, Captions.of([b"a square", b""]))
    >>> pairs.ids, list(pairs.texts), pairs.quarantined
    (['a'], ['a square'], [('b', 'an empty text')])
    """
    captions.tolerate(options.get("max_bad_fraction", 0.01))
    images = read_images(with_captions(source, captions), **options)
    kept = set(images.rows.tolist())
    pairs = Captioned(
        images,
        captions.texts.take(images.rows),
        quarantined=[*captions.remarks, *images.quarantined],
        truncated=[source.ids[row] for row in captions.cut if row in kept],
    )
    by_reason = captions.by_reason(images.quarantined)
    said = [f"{len(names):,} x {why}" for why, names in by_reason.items()]
    said += [f"{what}: {why}" for what, why in captions.remarks[:3]]
    said += [f"and {len(captions.remarks) - 3:,} more remarks"] * (len(captions.remarks) > 3)
    cut = f"; {len(pairs.truncated):,} texts cut to {LONGEST:,} characters" if pairs.truncated else ""
    logger.log(
        logging.WARNING if said or cut else logging.INFO,
        f"{source.name}: {len(pairs):,} pairs; left out: {', '.join(said) or 'nothing'}{cut}",
    )
    return pairs


def with_captions(source: Source, captions: Captions) -> Source:
    """The source, whose pictures without a usable text cannot be read either."""
    stamp = None if source.stamp is None else f"{source.stamp} {sorted(captions.bad.items())}"
    return replace(source, read=partial(_read, source.read, captions.bad), stamp=stamp)


def _read(read: Callable[[int], Content], bad: Mapping[int, str], row: int) -> Content:
    if row in bad:
        raise ValueError(bad[row])
    return read(row)
