from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from overtone.contracts import Batch
from overtone.encoders import TwoTowerEncoder, build_encoder
from overtone.errors import RecipeError
from overtone.methods import CLIP, SigLIP

N = 6


def _towers() -> TwoTowerEncoder:
    torch.manual_seed(0)
    towers = build_encoder("small_clip", width=8)
    assert isinstance(towers, TwoTowerEncoder)
    return towers.eval()


def _views(cell: list[int] | None = None, identity: list[int] | None = None) -> list[Batch]:
    draw = torch.Generator().manual_seed(1)
    ids = {
        "index": torch.arange(N),
        "cell": torch.tensor(cell or [0] * N),
        "identity": torch.tensor(identity or list(range(N))),
    }
    images = torch.rand(N, 3, 16, 16, generator=draw)
    return [{**ids, "image": images}, {**ids, "text": [f"{n} dots of colour {n % 4}" for n in range(N)]}]


def test_with_one_cell_it_is_the_symmetric_cross_entropy_of_clip() -> None:
    method = CLIP(_towers())
    loss, z = method.step(_views())
    images, texts = (F.normalize(z[part]) for part in (slice(0, N), slice(N, 2 * N)))
    logits = images @ texts.T / 0.07
    own = torch.arange(N)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(loss, expected)


def test_in_cells_with_equal_texts_it_is_a_loop_over_the_pairs_that_are_left() -> None:
    cell, identity = [0, 0, 0, 1, 1, 1], [0, 1, 0, 3, 4, 5]
    method = CLIP(_towers(), temperature=0.1)
    loss, z = method.step(_views(cell, identity))
    images, texts = z.detach()[:N], z.detach()[N:]
    total = 0.0
    for rows, columns in ((images, texts), (texts, images)):
        for i in range(N):
            own = float(rows[i] @ columns[i]) / 0.1
            rest = [
                float(rows[i] @ columns[j]) / 0.1
                for j in range(N)
                if cell[i] == cell[j] and identity[i] != identity[j]
            ]
            total -= own - math.log(sum(math.exp(logit) for logit in [own, *rest]))
    assert float(loss.detach()) == pytest.approx(total / (2 * N), rel=1e-5)


def test_the_scale_learns_unless_the_temperature_is_fixed() -> None:
    free, fixed = CLIP(_towers()), CLIP(_towers(), temperature=0.2)
    for method in (free, fixed):
        method.step(_views())[0].backward()  # type: ignore[no-untyped-call]
    assert free.encoder.logit_scale.grad is not None
    assert float(free.encoder.logit_scale.grad) != 0
    assert fixed.encoder.logit_scale.grad is None
    assert float(fixed.encoder.logit_scale.exp()) == pytest.approx(5)


def test_a_scale_that_rose_to_its_bound_comes_back() -> None:
    method, views = CLIP(_towers()), _views()
    wrong = [views[0], {**views[1], "text": views[1]["text"][::-1]}]  # for which any lower scale is better
    optimizer = torch.optim.SGD([method.encoder.logit_scale], lr=0.01)
    with torch.no_grad():
        method.encoder.logit_scale.fill_(9.0)
    for _ in range(3):
        optimizer.zero_grad()
        method.step(wrong)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(method.encoder.logit_scale.detach()) < math.log(99)


@pytest.mark.parametrize("method", [CLIP, SigLIP])
def test_several_sentences_of_a_picture_are_refused(method: type[CLIP]) -> None:
    pictures, texts = _views()
    with pytest.raises(RecipeError, match=r"views\.sentences=1"):
        method(_towers()).step([pictures, {**texts, "text": texts["text"] * 3}])


def test_a_scale_above_a_hundred_counts_as_a_hundred() -> None:
    found = []
    for scale in (math.log(100), math.log(1000)):
        method = CLIP(_towers())
        with torch.no_grad():
            method.encoder.logit_scale.fill_(scale)
        found.append(float(method.step(_views())[0]))
    assert found[0] == pytest.approx(found[1])


def test_what_has_one_tower_or_other_views_is_refused() -> None:
    with pytest.raises(RecipeError, match="two towers, but ImageEncoder has one"):
        CLIP(build_encoder("small_cnn"))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"views\.name=image_text"):
        CLIP(_towers()).step([_views()[0]] * 2)
    with pytest.raises(RecipeError, match="temperature=0"):
        CLIP(_towers(), temperature=0)
    with pytest.raises(RecipeError, match=r"temperature=0\.005: expected 0\.01 or more"):
        CLIP(_towers(), temperature=0.005)
