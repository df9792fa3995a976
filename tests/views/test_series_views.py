from __future__ import annotations

import math

import pytest
import torch

from overtone.contracts import Address, Batch
from overtone.errors import DataError, RecipeError
from overtone.views import SeriesViews

ADDRESS = Address(seed=3, stage=1, step=7)
OFF = SeriesViews(n_views=1, crop=(1.0, 1.0), scale=(1.0, 1.0), noise=0.0)


def batch(n: int = 6, steps: int = 20) -> Batch:
    """Values that count the steps of a series upwards from 1, so that a window shows where it lay."""
    length = torch.arange(n) % 15 + 5
    count = torch.arange(1, steps + 1).float().expand(n, steps)
    series = torch.stack([count, -count], dim=2) * (count <= length[:, None])[:, :, None]
    return {"index": torch.arange(n) * 3, "series": series, "length": length, "cell": torch.zeros(n)}


def test_padding_stays_zero_and_lengths_tell_the_window() -> None:
    for view in SeriesViews(mask=0.2)(batch(40), ADDRESS):
        beyond = torch.arange(20) >= view["length"][:, None]
        assert view["series"][beyond].eq(0).all()
        assert (view["length"] >= (batch(40)["length"] * 0.5).floor()).all()
        assert (view["length"] <= batch(40)["length"]).all()


def test_without_noise_a_view_is_a_scaled_window_of_the_series() -> None:
    view = SeriesViews(n_views=1, noise=0.0)(batch(40), ADDRESS)[0]
    for series, length, whole in zip(
        view["series"], view["length"].tolist(), batch(40)["length"], strict=True
    ):
        step = series[1:length, 0] - series[: length - 1, 0]
        factor = float(step[0])
        assert 0.8 <= factor <= 1.25
        torch.testing.assert_close(step, torch.full((length - 1,), factor), atol=1e-5, rtol=1e-5)
        first = round(float(series[0, 0]) / factor)
        assert 1 <= first <= first + length - 1 <= int(whole)
        torch.testing.assert_close(series[:, 1], -series[:, 0])


def test_views_do_not_depend_on_the_batch_or_its_padding() -> None:
    views = SeriesViews(mask=0.3)
    whole = views(batch(), ADDRESS)[1]
    alone = {key: value[2:3] for key, value in batch(steps=30).items()}
    view = views(alone, ADDRESS)[1]
    assert torch.equal(view["length"], whole["length"][2:3])
    assert torch.equal(view["series"][:, :20], whole["series"][2:3])
    assert view["series"][:, 20:].eq(0).all()


def test_noise_is_standard_normal_and_drawn_anew_for_each_view() -> None:
    quiet = {"index": torch.arange(200), "series": torch.zeros(200, 50, 2), "length": torch.full((200,), 50)}
    first, second = SeriesViews(crop=(1.0, 1.0), noise=2.0)(quiet, ADDRESS)
    noise = first["series"].flatten() / 2
    assert abs(noise.mean()) < 4 / math.sqrt(20000)
    assert abs(noise.std() - 1) < 4 / math.sqrt(2 * 20000)
    assert abs((noise * second["series"].flatten() / 2).mean()) < 4 / math.sqrt(20000)


def test_a_mask_hides_one_stretch_of_the_window() -> None:
    given = {"index": torch.arange(30), "series": torch.ones(30, 20, 1), "length": torch.full((30,), 20)}
    view = SeriesViews(n_views=1, crop=(1.0, 1.0), mask=0.25)(given, ADDRESS)[0]
    hidden = view["series"][:, :, 0] == 0
    edges = hidden.int().diff(prepend=torch.zeros(30, 1), append=torch.zeros(30, 1)).abs().sum(1)
    assert hidden.sum(1).tolist() == [5] * 30
    assert edges.tolist() == [2] * 30


def test_with_everything_off_a_view_is_the_series() -> None:
    given = batch()
    view = OFF(given, ADDRESS)[0]
    assert torch.equal(view["series"], given["series"])
    assert torch.equal(view["length"], given["length"])
    assert view["cell"] is given["cell"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_views", 0),
        ("crop", (0.5, 1.5)),
        ("crop", (0.0, 1.0)),
        ("scale", (2.0, 1.0)),
        ("noise", -1.0),
        ("mask", 1.0),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RecipeError, match=f"views.{name}="):
        SeriesViews(**{name: value})  # type: ignore[arg-type]


def test_series_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(6, 20\) with lengths of shape \(6,\)"):
        OFF({**batch(), "series": batch()["series"][:, :, 0]}, ADDRESS)
