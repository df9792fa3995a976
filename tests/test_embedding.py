from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from overtone.contracts import Batch, Sample
from overtone.embedding import embed, to_device
from overtone.errors import DataError, DiskError, NumericalError, RecipeError


class Series:
    """N short series; sample i is a row of `values`."""

    modality = "series"
    labels: Mapping[str, NDArray[np.int64]] = {}
    label_names: Mapping[str, Sequence[str]] = {}
    fingerprint = "0"

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.ids: Sequence[str] = [f"series-{i}" for i in range(len(values))]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Sample:
        return {"index": index, "series": self.values[index]}

    def collate(self, samples: list[Sample]) -> Batch:
        batch: Batch = torch.utils.data.default_collate(samples)
        return batch


class Encoder(nn.Module):
    """A linear map with batch norm and dropout, which both betray training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())

    def forward(self, batch: Batch) -> Tensor:
        embeddings: Tensor = self.layers(batch["series"])
        return embeddings


@pytest.fixture
def series() -> Series:
    return Series(torch.randn(23, 4, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def encoder() -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder()


def by_hand(encoder: Encoder, series: Series) -> NDArray[np.float64]:
    linear = encoder.layers[0]
    assert isinstance(linear, nn.Linear)
    rows = series.values.double() @ linear.weight.detach().double().T + linear.bias.detach().double()
    hand: NDArray[np.float64] = (rows / np.sqrt(1 + 1e-5)).numpy()  # fresh batch norm: mean 0, variance 1
    return hand


@pytest.mark.parametrize("batch_size", [1, 5, 23, 512])
def test_row_i_is_the_eval_mode_embedding_of_sample_i_at_any_batch_size(
    encoder: Encoder, series: Series, batch_size: int
) -> None:
    embeddings = embed(encoder, series, batch_size=batch_size)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, by_hand(encoder, series), atol=1e-6)


def test_worker_processes_keep_the_order(encoder: Encoder, series: Series) -> None:
    np.testing.assert_array_equal(
        embed(encoder, series, batch_size=4, num_workers=2), embed(encoder, series, batch_size=4)
    )


def test_bf16_gives_float32_that_is_close(encoder: Encoder, series: Series) -> None:
    embeddings = embed(encoder, series, precision="bf16")
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, by_hand(encoder, series), atol=0.05)
    assert not np.array_equal(embeddings, embed(encoder, series))


def test_every_module_gets_its_training_flag_back_also_after_an_error(
    encoder: Encoder, series: Series
) -> None:
    encoder.train()
    encoder.layers[1].eval()
    flags = [module.training for module in encoder.modules()]
    embed(encoder, series)
    assert [module.training for module in encoder.modules()] == flags
    series.values[3] = float("nan")
    with pytest.raises(NumericalError):
        embed(encoder, series)
    assert [module.training for module in encoder.modules()] == flags


def test_the_global_random_stream_and_gradient_mode_are_untouched(encoder: Encoder, series: Series) -> None:
    before = torch.get_rng_state()
    modes: list[bool] = []
    embed(encoder, series, batch_size=7, progress=lambda done, total: modes.append(torch.is_grad_enabled()))
    assert torch.equal(torch.get_rng_state(), before)
    assert modes == [True] * 4


def test_the_file_holds_what_the_array_holds(encoder: Encoder, series: Series, tmp_path: Path) -> None:
    out = tmp_path / "train.npy"
    mapped = embed(encoder, series, batch_size=5, out=out)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(np.load(out), embed(encoder, series, batch_size=5))
    assert [path.name for path in tmp_path.iterdir()] == ["train.npy"]


def test_a_failure_leaves_the_earlier_file_as_it_was(
    encoder: Encoder, series: Series, tmp_path: Path
) -> None:
    out = tmp_path / "train.npy"
    before = np.array(embed(encoder, series, out=out))
    series.values[20] = float("inf")
    with pytest.raises(NumericalError):
        embed(encoder, series, batch_size=5, out=out)
    np.testing.assert_array_equal(np.load(out), before)
    assert [path.name for path in tmp_path.iterdir()] == ["train.npy"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
def test_a_full_disk_is_an_error_before_the_first_row_is_written(
    encoder: Encoder, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskError, match="No space left"):
        embed(encoder, series, out=tmp_path / "train.npy")
    assert not list(tmp_path.iterdir())


def test_embeddings_that_are_not_finite_are_an_error_that_names_the_samples(
    encoder: Encoder, series: Series
) -> None:
    series.values[[11, 13]] = float("nan")
    with pytest.raises(NumericalError, match="2 of a batch of 5 samples, first series-11, series-13"):
        embed(encoder, series, batch_size=5)


def test_progress_hears_of_every_batch(encoder: Encoder, series: Series) -> None:
    heard: list[tuple[int, int]] = []
    embed(encoder, series, batch_size=10, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(10, 23), (20, 23), (23, 23)]


def test_an_encoder_that_gives_no_row_for_each_sample_is_refused(series: Series) -> None:
    class Unpooled(nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            unpooled: Tensor = batch["series"][:, :, None]
            return unpooled

    class Averaged(nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            means: Tensor = batch["series"].mean(dim=0, keepdim=True)
            return means

    with pytest.raises(RecipeError, match=r"\(23, 4, 1\) for a batch of 23 samples"):
        embed(Unpooled(), series)
    with pytest.raises(RecipeError, match=r"\(1, 4\) for a batch of 23 samples"):
        embed(Averaged(), series)


def test_an_empty_dataset_and_an_unknown_precision_are_refused(encoder: Encoder, series: Series) -> None:
    with pytest.raises(DataError, match="empty"):
        embed(encoder, Series(torch.empty(0, 4)))
    with pytest.raises(RecipeError, match="fp8"):
        embed(encoder, series, precision="fp8")


def test_a_batch_moves_with_the_tensors_of_the_dicts_inside_it() -> None:
    batch: Batch = {"index": torch.arange(2), "text": {"input_ids": torch.zeros(2)}, "caption": ["a", "b"]}
    moved = to_device(batch, "meta")
    assert moved["index"].device.type == moved["text"]["input_ids"].device.type == "meta"
    assert moved["caption"] == ["a", "b"]
    assert batch["index"].device.type == "cpu"
