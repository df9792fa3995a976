from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from towers import Known, captioned

from overtone.datasets import trifeature
from overtone.errors import DataError, RecipeError
from overtone.evaluation.retrieval import recall, retrieval


def dense(rows: Tensor, columns: Tensor, ids: list[int], k: int) -> float:
    """Sorts every row, the wrong before the right where they are as similar."""
    found = 0
    for row, own in zip(rows, ids, strict=True):
        order = sorted((-float(row @ c), other == own) for c, other in zip(columns, ids, strict=True))
        found += any(right for _, right in order[:k])
    return 100 * found / len(rows)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_recall_is_that_of_sorting_every_row_whatever_the_chunk(chunk: int) -> None:
    g = torch.Generator().manual_seed(0)
    rows, columns = (F.normalize(torch.randn(60, 4, generator=g, dtype=torch.float64), dim=1) for _ in "ab")
    columns = columns + 0.8 * rows
    ids = torch.randint(40, (60,), generator=g)  # a third of the texts come more than once
    found = recall(rows, columns, ids, chunk=chunk)
    assert found == {k: pytest.approx(dense(rows, columns, ids.tolist(), k)) for k in (1, 5, 10)}
    assert 0 < found[1] < found[5] < found[10] < 100


@pytest.mark.parametrize("chunk", [2, 100])
def test_a_tie_with_a_wrong_match_is_a_miss(chunk: int) -> None:
    g = torch.Generator().manual_seed(1)
    rows, columns = (torch.randint(-1, 2, (30, 3), generator=g).double() for _ in "ab")
    ids = torch.arange(30) // 2
    assert recall(rows, columns, ids, ks=[1, 3], chunk=chunk) == {
        k: pytest.approx(dense(rows, columns, ids.tolist(), k)) for k in (1, 3)
    }
    same = torch.ones(20, 4)
    assert recall(same, same, torch.arange(20)) == {1: 0.0, 5: 0.0, 10: 0.0}


def test_both_ways_are_counted_and_equal_texts_are_right_for_each_others_pictures() -> None:
    # Pictures 0 and 1 have one text; picture 1 looks like picture 0, picture 3 like picture 2.
    images = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.1]])
    texts = {"a cat": (1.0, 0.0, 0.0), "a dog": (0.0, 1.0, 0.0), "a bird": (0.0, 0.0, 1.0)}
    dataset = captioned(images, ["a cat", "a cat", "a dog", "a bird"])
    found = retrieval(Known(texts), dataset, ks=[1, 2], batch_size=3)
    assert found.image_to_text == {1: 75.0, 2: 100.0}  # the bird's picture is nearer to "a dog"
    assert found.text_to_image == {1: 100.0, 2: 100.0}
    assert (found.n, found.n_texts) == (4, 3)
    assert found == retrieval(Known(texts), dataset, ks=[1, 2], chunk=2)


def test_progress_reaches_the_number_of_samples() -> None:
    seen: list[tuple[int, int]] = []
    dataset = captioned(torch.eye(5), list("abcde"))
    texts = {name: row.tolist() for name, row in zip("abcde", torch.eye(5), strict=True)}
    retrieval(Known(texts), dataset, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_what_cannot_be_retrieved_is_refused() -> None:
    with pytest.raises(DataError, match="4 samples without a `text`"):
        retrieval(Known({}), trifeature(4))
    with pytest.raises(RecipeError, match=r"ks: \[0\]"):
        recall(torch.eye(2), torch.eye(2), torch.arange(2), ks=[0])
