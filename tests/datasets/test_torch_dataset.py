"""Torch datasets of every kind of item."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from overtone.datasets import ImageDataset, torch_dataset
from overtone.errors import DataError, RecipeError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
TENSORS = [torch.from_numpy(one.transpose(2, 0, 1).copy()) for one in PIXELS]
PICTURES = [Image.fromarray(one) for one in PIXELS]


@pytest.mark.parametrize(
    "items",
    [
        TENSORS,
        list(PIXELS),
        PICTURES,
        [(picture, i % 2) for i, picture in enumerate(PICTURES)],
        [{"image": tensor, "label": torch.tensor(i % 2)} for i, tensor in enumerate(TENSORS)],
    ],
    ids=["tensors", "arrays", "PIL", "tuples", "dicts"],
)
def test_every_kind_of_item_gives_the_same_pictures(items: Any) -> None:
    dataset = torch_dataset(items)
    assert isinstance(dataset, ImageDataset)
    assert all(torch.equal(dataset[i]["image"], TENSORS[i]) for i in range(4))
    if dataset.labels:
        assert dataset.labels["label"].tolist() == [0, 1, 0, 1]


def test_tensors_of_floats_from_0_to_255_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DataError, match="expected 0 to 1; divide by 255 or give uint8"):
        torch_dataset([tensor.float() for tensor in TENSORS])


def test_targets_and_classes_name_the_label_without_a_pass() -> None:
    class Torchvision(list[Any]):
        targets = (1, 0, 1, 0)
        classes = ("cat", "dog")

    dataset = torch_dataset(Torchvision((picture, 9) for picture in PICTURES))
    assert dataset.labels["label"].tolist() == [1, 0, 1, 0]
    assert dataset.label_names["label"] == ("cat", "dog")


def test_floats_without_fractions_are_labels_and_those_with_some_are_none() -> None:
    species, weight = (2.0, float("nan"), 0.0, 2.0), (1.0, 2.0, 2.5, 3.0)
    items = [
        {"image": tensor, "species": torch.tensor(a), "tag": np.float32(a), "weight": b}
        for tensor, a, b in zip(TENSORS, species, weight, strict=True)
    ]
    dataset = torch_dataset(items)
    assert {name: codes.tolist() for name, codes in dataset.labels.items()} == {
        "species": [2, -1, 0, 2],
        "tag": [2, -1, 0, 2],
    }


def test_given_labels_go_before_those_of_the_items() -> None:
    dataset = torch_dataset([(tensor, 1) for tensor in TENSORS], labels={"side": list("lrlr")})
    assert list(dataset.labels) == ["side"]
    with pytest.raises(DataError, match="1 labels of 'side' for 4"):
        torch_dataset(TENSORS, labels={"side": ["l"]})


def test_dicts_of_another_modality_keep_their_keys_and_use_the_given_collate() -> None:
    items = [{"series": torch.ones(n, 1), "mood": "sad" if n == 2 else "gay"} for n in (2, 5, 3)]

    def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {"series": pad_sequence([sample["series"] for sample in samples], batch_first=True)}

    dataset = torch_dataset(items, modality="series", collate=collate)
    batch = dataset.collate([dataset[2], dataset[1]])
    assert dataset[1]["mood"] == "gay"
    assert dataset.labels["mood"].tolist() == [1, 0, 0]
    assert batch["index"].tolist() == [2, 1]
    assert batch["series"].shape == (2, 5, 1)


def test_another_modality_stacks_by_default() -> None:
    dataset = torch_dataset([(torch.full((3,), float(i)), i) for i in range(3)], modality="vector")
    batch = dataset.collate([dataset[0], dataset[2]])
    assert batch["vector"].tolist() == [[0, 0, 0], [2, 2, 2]]


def test_the_fingerprint_of_another_modality_follows_the_content() -> None:
    one, same, other = (
        torch_dataset([{"text": text} for text in texts], modality="text").fingerprint
        for texts in (["a", "bc"], ["a", "bc"], ["ab", "c"])
    )
    assert one == same != other


def test_what_cannot_be_used_is_an_error() -> None:
    with pytest.raises(DataError, match="no samples"):
        torch_dataset([])
    with pytest.raises(RecipeError, match="keys"):
        torch_dataset([{"picture": TENSORS[0]}])
    with pytest.raises(RecipeError, match="collate"):
        torch_dataset(TENSORS, collate=lambda samples: {})
    with pytest.raises(RecipeError, match="image_size"):
        torch_dataset(TENSORS, modality="series", image_size=3)
    with pytest.raises(DataError, match="a list; give"):
        torch_dataset([[1, 2, 3]])
    with pytest.raises(DataError, match="holds a set"):
        _ = torch_dataset([{"bag": {1}}], modality="bag").fingerprint
