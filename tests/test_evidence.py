from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.datasets import arrays, tones
from overtone.encoders import SeriesEncoder, build_encoder
from overtone.errors import RecipeError
from overtone.evidence import TEMPERATURE, covering, saliency, strongest
from overtone.views.erasing import Units, bank_of

CPU = torch.device("cpu")


class _Corner(nn.Module):
    """Sees the top left 4 x 4 pixels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 5)

    def forward(self, batch: Batch) -> Tensor:
        found: Tensor = self.linear(batch["image"][:, :, :4, :4].float().flatten(1))
        return found


def _pictures(n: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 8, 12), dtype=np.uint8)


def test_all_saliency_lies_on_the_patch_that_the_encoder_sees() -> None:
    torch.manual_seed(0)
    found = saliency(
        _Corner(), arrays(_pictures()), np.ones((30, 5), np.float32), Units(4), seed=0, device=CPU
    )
    assert found.shape == (30, 6)
    assert np.allclose(found[:, 0], 1, atol=1e-6)
    assert np.all(found[:, 1:] == 0)


def test_saliency_is_the_first_order_change_when_a_value_shows_the_average_instead() -> None:
    """By central differences, value by value, in float64."""
    torch.manual_seed(1)
    pixels = np.random.default_rng(1).integers(0, 256, (6, 1, 4, 8), dtype=np.uint8)
    dataset, encoder = arrays(pixels), build_encoder("small_cnn", channels=1).eval()
    backbone = cast(nn.Module, encoder.backbone)
    embeddings = np.random.default_rng(2).normal(size=(6, 128)).astype(np.float32)
    found = saliency(encoder, dataset, embeddings, Units(4), seed=0, device=CPU)

    encoder = encoder.double()
    others = torch.nn.functional.normalize(torch.from_numpy(embeddings).double(), dim=1)
    average = (bank_of(dataset, 0)["image"].double() / 255).mean(0)

    def score(image: Tensor) -> float:
        own = torch.nn.functional.normalize(backbone((image[None] - 0.5) / 0.25), dim=1)
        return float(torch.logsumexp(own @ others.T / TEMPERATURE, dim=1).detach())

    image = torch.from_numpy(pixels[3]).double() / 255
    moved = np.zeros(2)
    for y, x in np.ndindex(4, 8):
        step = torch.zeros_like(image)
        step[0, y, x] = 1e-6
        slope = (score(image + step) - score(image - step)) / 2e-6
        moved[x // 4] += abs(slope * float(image[0, y, x] - average[0, y, x]))
    assert found[3] == pytest.approx(moved / moved.sum(), abs=1e-3)


def test_series_of_different_lengths_have_no_saliency_beyond_their_end() -> None:
    dataset = tones(20)
    torch.manual_seed(0)
    encoder = SeriesEncoder(channels=dataset[0]["series"].shape[-1])
    units = Units.of(bank_of(dataset, 0)["series"])
    found = saliency(encoder, dataset, np.ones((20, 128), np.float32), units, seed=0, device=CPU)
    for row in range(20):
        ends = -(-len(dataset[row]["series"]) // units.side)
        assert found[row].sum() == pytest.approx(1, abs=1e-5)
        assert np.all(found[row, ends:] == 0)


class _Words:
    """Twelve sentences of five words each, of which the third alone differs."""

    modality = "tokens"
    tokens = torch.tensor([[1, 2, 3 + i, 4, 5] for i in range(12)])

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"index": index, "tokens": self.tokens[index]}

    def collate(self, samples: list[Batch]) -> Batch:
        return torch.utils.data.default_collate(samples)  # type: ignore[no-any-return]


class _Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6)

    def forward(self, batch: Batch) -> Tensor:
        found: Tensor = self.words(batch["tokens"]).mean(1)
        return found


def test_the_only_word_that_differs_holds_all_the_saliency() -> None:
    torch.manual_seed(0)
    bag, words = _Bag(), _Words()
    embeddings = bag({"tokens": words.tokens}).detach().numpy()
    found = saliency(bag, words, embeddings, Units(1), seed=0, device=CPU)  # type: ignore[arg-type]
    assert np.allclose(found, np.eye(5)[[2] * 12], atol=1e-5)


def test_tokens_without_an_embedding_layer_end_in_a_message() -> None:
    class Raw(nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            return batch["tokens"].float()  # type: ignore[no-any-return]

    with pytest.raises(RecipeError, match=r"nn\.Embedding"):
        saliency(Raw(), _Words(), np.ones((12, 5), np.float32), Units(1), seed=0, device=CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_covering_takes_the_fewest_units_that_hold_the_share(share: float) -> None:
    drawn = np.random.default_rng(0).random((50, 9)).astype(np.float32) ** 3
    for row, marked in zip(drawn, covering(drawn, share), strict=True):
        total, taken = row.sum(), sorted(row, reverse=True)
        fewest = next(k for k in range(10) if sum(taken[:k]) >= share * total - 1e-6)
        assert marked.sum() == fewest
        assert row[marked].sum() >= share * total - 1e-5


def test_strongest_takes_as_many_units_of_every_sample() -> None:
    drawn = np.random.default_rng(0).random((20, 8)).astype(np.float32)
    marked = strongest(drawn, 0.25)
    assert np.all(marked.sum(1) == 2)
    assert np.all(np.where(marked, drawn, 1).min(1) > np.where(marked, 0, drawn).max(1))
