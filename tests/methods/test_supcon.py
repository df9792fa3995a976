from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command import Run
from torch import Tensor
from torch.nn.functional import normalize

from overtone.contracts import Batch
from overtone.datasets import digits, with_label
from overtone.encoders import build_encoder
from overtone.errors import RecipeError
from overtone.methods import SimCLR, SupCon
from overtone.rng import generator, seeded

B = 6
TWO_LABELS, ALL_APART, UNLABELLED = [0, 0, 1, 1, 1, -1], list(range(B)), [-1] * B


def _views(label: list[int], cell: list[int] | None = None, n_views: int = 2) -> list[Batch]:
    ids = {"cell": torch.tensor(cell or [0] * B), "identity": torch.tensor([0, 1, 2, 3, 4, 0])}
    images = torch.rand(n_views, B, 3, 16, 16, generator=generator(0, "supcon"))
    return [{"image": image, "label": torch.tensor(label), **ids} for image in images]


def _method(kind: Any = SupCon) -> Any:
    with seeded(0, "supcon"):
        return kind(build_encoder("small_cnn"), temperature=0.5, out_dim=8)


def _loops(z: Tensor, views: list[Batch]) -> Tensor:
    """L_out, one anchor at a time; the last and the first sample are copies, which never repel each other."""
    n = len(z)
    label, cell, identity = (views[0][key].tolist() for key in ("label", "cell", "identity"))
    s = normalize(z.double(), dim=1)
    s = s @ s.T / 0.5
    total = torch.zeros((), dtype=torch.float64)
    for a in range(n):
        i = a % B
        own, others = [], []
        for b in range(n):
            j = b % B
            if i == j or (label[i] == label[j] != -1):
                own += [b] if a != b else []
            elif cell[i] == cell[j] and identity[i] != identity[j]:
                others.append(b)
        below = sum(s[a, b].exp() for b in own + others)
        total = total - sum(torch.log(s[a, p].exp() / below) for p in own) / len(own)
    return total / n


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("label", [TWO_LABELS, ALL_APART, [0] * B])
@pytest.mark.parametrize("cell", [[0] * B, [0, 1, 0, 1, 2, 3]])
def test_it_is_the_loop_over_anchors_and_their_positives(
    label: list[int], cell: list[int], n_views: int
) -> None:
    views = _views(label, cell, n_views)
    loss, z = _method().step(views)
    torch.testing.assert_close(loss.double(), _loops(z, views), rtol=0, atol=1e-5)


@pytest.mark.parametrize("label", [ALL_APART, UNLABELLED])
@pytest.mark.parametrize("cell", [[0] * B, [0, 0, 0, 1, 1, 2], ALL_APART])
def test_where_no_two_samples_share_a_label_it_is_simclr(label: list[int], cell: list[int]) -> None:
    views = _views(label, cell)
    torch.testing.assert_close(_method().step(views)[0], _method(SimCLR).step(views)[0])


def test_the_gradient_is_finite_where_there_are_no_negatives() -> None:
    method = _method()
    loss, _ = method.step(_views(TWO_LABELS, ALL_APART))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters())


def test_autocast_leaves_the_loss_in_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _method().step(_views(TWO_LABELS))[0].dtype == torch.float32


def test_batches_without_labels_and_single_views_are_refused() -> None:
    views = _views(TWO_LABELS)
    with pytest.raises(RecipeError, match=r"views: 1 of each batch, but supcon takes 2 or more"):
        _method().step(views[:1])
    bare = [{key: value for key, value in view.items() if key != "label"} for view in views]
    with pytest.raises(RecipeError, match=r"wrap the data set: data: \{source: with_label"):
        _method().step(bare)


def test_a_labelled_dataset_is_the_dataset_with_the_label_in_its_batches() -> None:
    plain = digits(8)
    labelled = with_label(plain, "digit")
    batch = labelled.collate([labelled[i] for i in (5, 1)])
    assert batch["label"].tolist() == plain.labels["digit"][[5, 1]].tolist()
    assert torch.equal(batch["image"], plain.collate([plain[5], plain[1]])["image"])
    assert (len(labelled), labelled.ids, labelled.modality) == (8, plain.ids, "image")
    assert labelled.fingerprint != plain.fingerprint
    with pytest.raises(RecipeError, match="attribute='digits': is none of the dataset's: 'digit'"):
        with_label(plain, "digits")


def test_a_recipe_trains_on_labels(tmp_path: Path, overtone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(
        "data: {source: with_label, dataset: {source: digits, n: 96, image_size: 16}, attribute: digit}\n"
        "test: {source: digits, n: 64, start: 96, image_size: 16}\n"
        "method: {name: supcon}\nstages: 1\nthreads: 1\n"
        "train: {epochs: 1, batch_size: 32}\n",
        encoding="utf-8",
    )
    code, out, complaint = overtone("train", "recipe.yaml", "--out", "run")
    assert code == 0, complaint
    assert "digit" in out
