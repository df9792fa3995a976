from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import LaidOn, LaidOnViews, with_copies

from overtone.contracts import Address
from overtone.datasets import composite, digits, trifeature
from overtone.views import ImageViews

PAIR = composite(trifeature(12, image_size=32), digits(200), instances=10)
HERE = Address(seed=0, stage=0, step=0)


@pytest.fixture(params=["over", "corner"])
def laid(request: pytest.FixtureRequest) -> LaidOn:
    return LaidOn(PAIR, request.param)


def test_strokes_lie_over_the_photograph_and_nothing_else_does() -> None:
    laid = LaidOn(PAIR, "over")
    for i in range(len(laid)):
        ground, digit = PAIR[i]["image"][:, :, :32], PAIR[i]["image"][:, :, 32:]
        strokes = (digit > 127).all(0)
        image = laid[i]["image"]
        assert torch.equal(image[:, strokes], digit[:, strokes])
        assert torch.equal(image[:, ~strokes], ground[:, ~strokes])


def test_the_corner_holds_the_digit_at_half_its_size() -> None:
    laid = LaidOn(PAIR, "corner")
    for i in range(len(laid)):
        ground, digit = PAIR[i]["image"][:, :, :32], PAIR[i]["image"][:, :, 32:].float()
        image = laid[i]["image"].clone()
        quarters = [digit[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
        assert (image[:, :16, :16] - torch.stack(quarters).mean(0)).abs().max() < 1
        image[:, :16, :16] = ground[:, :16, :16]
        assert torch.equal(image, ground)


def test_views_show_the_same_digit_on_photographs_augmented_like_any_others(laid: LaidOn) -> None:
    batch = laid.collate([laid[i] for i in range(len(laid))])
    grounds = ImageViews()({**batch, "image": batch["ground"]}, HERE)
    for view, ground in zip(LaidOnViews()(batch, HERE), grounds, strict=True):
        marked = batch["marked"].expand(-1, 3, -1, -1)
        assert torch.equal(view["image"][marked], (batch["mark"].float() / 255)[marked])
        assert torch.equal(view["image"][~marked], ground["image"][~marked])


def test_what_was_hidden_before_stays_hidden_in_photograph_and_digit(laid: LaidOn) -> None:
    batch = laid.collate([laid[i] for i in range(len(laid))])
    still = LaidOnViews(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, jitter=0, grey=0)
    batch["image"][:, :, :20] = 100
    (view, _) = still(batch, HERE)
    assert torch.allclose(view["image"], batch["image"] / 255, atol=1e-6)


def test_copies_are_as_many_as_asked_nearly_but_not_quite_their_picture_and_keep_its_label() -> None:
    whole = trifeature(100, image_size=32)
    copied = with_copies(whole, 0.05)
    assert len(copied) == 100
    assert copied.ids[:95] == list(whole.ids[:95])
    rows = [whole.ids.index(name.removesuffix(" again")) for name in copied.ids[95:]]
    assert len(set(rows)) == 5
    assert max(rows) < 95
    for i, row in zip(range(95, 100), rows, strict=True):
        difference = copied[i]["image"].float() - whole[row]["image"].float()
        assert 2 < float(difference.abs().mean()) < 20
        for name, codes in copied.labels.items():
            assert copied.label_names[name][codes[i]] == whole.label_names[name][whole.labels[name][row]]
    assert all(torch.equal(copied[i]["image"], whole[i]["image"]) for i in range(95))
    assert np.unique([copied[i]["image"].numpy().tobytes() for i in range(100)]).size == 100
