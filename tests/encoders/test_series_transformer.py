from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from overtone.contracts import Batch
from overtone.encoders import SeriesTransformer
from overtone.encoders.series_transformer import cut, normalised
from overtone.errors import RecipeError
from overtone.rng import generator

LENGTHS = torch.tensor([3, 16, 17, 31, 40])


def _batch(padding: int = 0, channels: int = 2) -> Batch:
    series = torch.randn(5, 40, channels, generator=generator(0, "series"))
    series = series * (torch.arange(40) < LENGTHS[:, None])[:, :, None]
    return {"series": torch.nn.functional.pad(series, (0, 0, 0, padding)), "length": LENGTHS}


@pytest.mark.parametrize(("patch", "stride"), [(16, 8), (5, 5), (4, 1)])
def test_patches_are_those_of_each_series_prolonged_by_its_last_value(patch: int, stride: int) -> None:
    batch = _batch()
    found = cut(batch["series"], LENGTHS, patch, stride)
    encoder = SeriesTransformer(2, patch=patch, stride=stride, dim=8).eval()
    present = encoder(batch, parts=True).present
    for row, length in enumerate(LENGTHS.tolist()):
        series = batch["series"][row, :length].tolist()
        series += [series[-1]] * max(stride, patch - length)
        starts = [at for at in range(0, len(series), stride) if at + patch <= len(series)]
        assert present[row].sum() == len(starts) == max(1, (length + stride - patch) // stride + 1)
        expected = torch.tensor([series[at : at + patch] for at in starts]).flatten(1)
        assert_close(found[row, : len(starts)], expected)


def test_each_channel_of_each_series_has_mean_0_and_deviation_1_and_nothing_after_its_end() -> None:
    found = normalised(_batch(padding=3)["series"], LENGTHS)
    for row, length in zip(found, LENGTHS.tolist(), strict=True):
        assert_close(row[:length].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
        assert_close(row[:length].var(0, correction=0), torch.ones(2))
        assert not row[length:].any()


def test_embeddings_depend_on_neither_padding_nor_the_rest_of_the_batch_nor_scale_nor_offset() -> None:
    encoder = SeriesTransformer(2, dim=16).eval()
    batch = _batch()
    expected = encoder(batch)
    exists = (torch.arange(40) < LENGTHS[:, None])[:, :, None]
    scaled = {**batch, "series": (3 * batch["series"] + 5) * exists}
    for other in (_batch(padding=30), scaled):
        assert_close(encoder(other), expected, atol=1e-5, rtol=0)
    alone = {"series": batch["series"][:2, :16], "length": LENGTHS[:2]}
    assert_close(encoder(alone), expected[:2], atol=1e-5, rtol=0)


def test_a_constant_series_is_finite() -> None:
    constant = {"series": torch.full((2, 20, 1), 7.0), "length": torch.tensor([20, 1])}
    assert encoder_of_one(constant).isfinite().all()


def encoder_of_one(batch: Batch) -> torch.Tensor:
    embeddings: torch.Tensor = SeriesTransformer(1, dim=8)(batch)
    return embeddings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"stride": 20}, "encoder.stride=20"),
        ({"dim": 12}, "encoder.dim=12"),
        ({"layers": 0}, "encoder.layers=0"),
    ],
)
def test_sizes_that_do_not_fit_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        SeriesTransformer(1, **arguments)
