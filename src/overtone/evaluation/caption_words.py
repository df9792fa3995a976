"""Words of captions as attributes: what people say of pictures that have no other labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_WORDS = 12
_FEWEST, _RAREST, _COMMONEST = 10, 0.02, 0.5


def caption_words(texts: Sequence[str], most: int = MOST_WORDS) -> dict[str, NDArray[np.int64]]:
    """The content words that captions use most often, each as an attribute: 1 where a caption has it, else 0.

    A word is two letters or more, in lower case, none of scikit-learn's English stop words, and is in at
    least 10 captions, 2 % of them, and at most half of them. Of words that always come together the first
    in the alphabet is kept.

    Args:
        texts: A caption a sample.
        most: The most words.

    Returns:
        Word -> (N,) int64, the most frequent first.

    >>> words = caption_words(["a red dog", "the red cat", "a dog", "birds"] * 10)
    >>> {word: has[:4].tolist() for word, has in words.items()}
    {'dog': [1, 0, 1, 0], 'red': [1, 1, 0, 0], 'birds': [0, 0, 0, 1], 'cat': [0, 1, 0, 0]}
    """
    from sklearn.feature_extraction.text import CountVectorizer

    fewest = max(_FEWEST, int(np.ceil(_RAREST * len(texts))))
    if fewest > _COMMONEST * len(texts):
        return {}
    words = CountVectorizer(
        stop_words="english",
        token_pattern=r"(?u)\b[^\W\d_]{2,}\b",
        binary=True,
        min_df=1,
        max_df=_COMMONEST,
        dtype=np.int64,
    )
    try:
        has = words.fit_transform(texts).tocsc()
    except ValueError:  # no word is left
        return {}
    counts, names = np.asarray(has.sum(axis=0)).ravel(), words.get_feature_names_out()
    found: dict[str, NDArray[np.int64]] = {}
    seen: set[bytes] = set()
    for column in np.argsort(-counts, kind="stable"):
        if counts[column] < fewest or len(found) == most:
            break
        codes = has[:, [column]].toarray().ravel()
        if codes.tobytes() not in seen:
            seen.add(codes.tobytes())
            found[str(names[column])] = codes
    return found
