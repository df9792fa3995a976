from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from overtone import identities as module
from overtone import rng
from overtone.contracts import Batch, Ids
from overtone.datasets import Captioned, arrays, subset, tones, torch_dataset, trifeature
from overtone.encoders import Encoder
from overtone.errors import RecipeError
from overtone.identities import counted, find_identities, near_copies, report
from overtone.levers.identities import identities_kept
from overtone.methods import SimCLR
from overtone.multistage import run
from overtone.objectives import contrastive_accuracy, nt_xent

Pictures = NDArray[np.uint8]


def _pictures(n: int = 800, **options: Any) -> Pictures:
    data = trifeature(n, **options)
    return np.stack([data[i]["image"].numpy() for i in range(n)])


def _jpeg(pictures: Pictures, quality: int) -> Pictures:
    """Re-encoded one by one, without the chroma subsampling that thin saturated drawings do not survive."""

    def again(picture: Pictures) -> Pictures:
        file = io.BytesIO()
        Image.fromarray(picture.transpose(1, 2, 0)).save(file, "JPEG", quality=quality, subsampling=0)
        return np.asarray(Image.open(file)).transpose(2, 0, 1)

    return np.stack([again(picture) for picture in pictures])


def _brighter(pictures: Pictures, by: int) -> Pictures:
    return np.clip(pictures.astype(np.int64) + by, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def planted() -> tuple[Pictures, NDArray[np.int64]]:
    """800 drawn pictures and 42 copies of the first ones, 14 of each kind; and their true identities."""
    pictures = _pictures()
    copies = [pictures[:14], _jpeg(pictures[14:28], 90), _brighter(pictures[28:42], 3)]
    return np.concatenate([pictures, *copies]), np.concatenate([np.arange(800), np.arange(42)])


def test_five_percent_of_planted_copies_are_found_and_nothing_else_is_merged(
    planted: tuple[Pictures, NDArray[np.int64]],
) -> None:
    pictures, truth = planted
    found = find_identities(arrays(pictures, channels_last=False))
    assert found.tolist() == truth.tolist()
    assert "4.99% of 842 samples" in str(counted(found))


def test_only_equal_contents_are_exact_copies_and_kept_ones_are_all_their_own(
    planted: tuple[Pictures, NDArray[np.int64]],
) -> None:
    pictures, truth = planted
    data = arrays(pictures, channels_last=False)
    expected = np.where(np.arange(842) < 814, truth, np.arange(842))
    assert find_identities(data, "exact").tolist() == expected.tolist()
    assert find_identities(data, "keep").tolist() == list(range(842))


@pytest.mark.parametrize("form", [np.uint16, np.float32])
def test_depth_channels_and_range_make_no_difference(form: Any) -> None:
    pictures = _pictures(200)[:, :2]
    copied = np.concatenate([pictures, _brighter(pictures[:10], 2)])
    scaled = copied.astype(form) * (257 if form is np.uint16 else 1 / 510)
    found = find_identities(arrays(scaled.astype(form), channels_last=False))
    assert found.tolist() == find_identities(arrays(copied, channels_last=False)).tolist()
    assert found.tolist() == [*range(200), *range(10)]


def _by_loops(vectors: NDArray[np.float32], radii: NDArray[np.float64]) -> list[int]:
    """Every pair one by one; chains are followed."""
    group = list(range(len(vectors)))
    for i, one in enumerate(vectors):
        for j in range(i):
            if np.linalg.norm(one - vectors[j]) <= min(radii[i], radii[j]):
                group = [group[j] if g == group[i] else g for g in group]
    return [group.index(g) for g in group]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("exact", [True, False])
def test_the_search_finds_the_groups_that_loops_over_all_pairs_find(
    seed: int, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 32)
    if not exact:
        monkeypatch.setattr(module, "_EXACT", 0)
        monkeypatch.setattr(module, "_WINDOW", 40)
    draw = rng.numpy_generator(seed, "identities")
    vectors = draw.normal(size=(120, 40)).astype(np.float32)
    for row in range(80, 120):  # chains as well: of one row, and of the row before
        vectors[row] = vectors[row // 2 if row % 2 else row - 1] + 0.1 * draw.normal(size=40)
    radii = []
    drawn = vectors[np.sort(rng.permuted(np.arange(16), 120, rng.derive(0, "identities")))]
    for one in vectors:
        radii.append(0.2 * np.sort(np.linalg.norm(drawn - one, axis=1))[3])
    found = near_copies(vectors, np.arange(120), 0.2)
    assert found.tolist() == _by_loops(vectors, np.array(radii))
    assert counted(found).largest > 2


def test_series_of_one_shape_are_compared_standardised_and_others_exactly() -> None:
    draw = rng.numpy_generator(0, "series")
    rows = draw.normal(size=(100, 40)) * np.logspace(0, 6, 40)
    rows[90:] = rows[:10] + 0.01 * np.logspace(0, 6, 40)
    series = torch_dataset(list(torch.from_numpy(rows)), modality="series")
    assert find_identities(series).tolist() == [*range(90), *range(10)]
    short = torch_dataset(list(torch.from_numpy(rows[:, :4])), modality="series")
    assert find_identities(short).tolist() == list(range(100))
    texts = torch_dataset([{"text": t} for t in ("a bird", "a dog", "a bird")], modality="text")
    assert find_identities(texts).tolist() == [0, 1, 0]


def test_missing_values_and_very_small_sets_are_taken() -> None:
    gaps = torch.from_numpy(rng.numpy_generator(0, "gaps").normal(size=(40, 50)))
    gaps[:, 3], gaps[5, 7], gaps[9] = float("nan"), float("inf"), gaps[8]
    assert find_identities(torch_dataset(list(gaps), modality="series"))[[5, 8, 9]].tolist() == [5, 8, 8]
    for n in (1, 2, 3):
        assert find_identities(trifeature(n)).tolist() == list(range(n))


def test_series_of_many_shapes_are_compared_exactly() -> None:
    data = tones(60)
    twice = [data[i % 30]["series"] for i in range(60)]
    assert find_identities(torch_dataset(twice, modality="series")).tolist() == [*range(30), *range(30)]
    assert find_identities(data).tolist() == list(range(60))


def test_workers_and_the_global_stream_change_nothing(tmp_path: Path) -> None:
    data = arrays(np.concatenate([_pictures(300), _pictures(300)]), channels_last=False)
    torch.manual_seed(0)
    found = find_identities(data, scratch=tmp_path)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert find_identities(data, num_workers=1).tolist() == found.tolist() == [*range(300), *range(300)]
    assert torch.equal(torch.rand(3), expected)
    assert not list(tmp_path.iterdir())


def test_a_group_of_a_large_share_of_the_data_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    report(np.array([0, 0, *range(2, 300)]))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    report(np.array([0, 5, 5, 5, 5, *range(5, 300)]))
    assert caplog.records[-1].levelname == "WARNING"
    assert "5 samples (2 %) count as copies of sample 5" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"duplicates": "all"}, "duplicates: 'all' is unknown; expected one of near, exact, keep"),
        ({"tolerance": 0.0}, "tolerance: 0.0, expected a number between 0 and 1"),
        ({"tolerance": float("nan")}, "tolerance: nan"),
    ],
)
def test_values_that_cannot_be_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        find_identities(trifeature(20), **arguments)


def _gradient(z: Tensor, ids: Ids) -> Tensor:
    positive = torch.arange(len(z)).roll(len(z) // 2)
    (gradient,) = torch.autograd.grad(nt_xent(z, z, positive, ids, ids, 0.5), z)
    return gradient


def test_two_copies_do_not_push_each_other_and_all_others_do_as_in_the_loops() -> None:
    z = normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    z.requires_grad_()
    cell, identity = torch.zeros(8, dtype=torch.int64), torch.tensor([0, 0, 2, 3] * 2)
    terms = []
    for i in range(8):  # samples 0 and 1 are copies; i + 4 is the other view of i
        s = normalize(z) @ normalize(z)[i] / 0.5
        p = (i + 4) % 8
        others = [j for j in range(8) if {i % 4, j % 4} != {0, 1} and i % 4 != j % 4]
        terms.append(-s[p] + torch.log(s[p].exp() + sum(s[j].exp() for j in others)))
    (expected,) = torch.autograd.grad(torch.stack(terms).mean(), z)
    torch.testing.assert_close(_gradient(z, Ids(cell, identity)), expected, rtol=0, atol=1e-12)


def test_a_batch_of_copies_alone_gives_loss_zero_and_no_gradient() -> None:
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ids = Ids(torch.zeros(8, dtype=torch.int64), torch.full((8,), 3))
    positive = torch.arange(8).roll(4)
    assert nt_xent(z, z, positive, ids, ids).item() == 0
    assert not _gradient(z, ids).any()
    assert contrastive_accuracy(z, z, positive, ids, ids).isnan()


@pytest.mark.parametrize("duplicates", ["near", "exact", "keep"])
def test_every_stage_trains_with_the_identities_that_the_run_keeps(
    tmp_path: Path, duplicates: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pictures = _pictures(190, image_size=16)
    data = arrays(np.concatenate([pictures, pictures[:5], _brighter(pictures[5:10], 2)]), channels_last=False)
    seen: list[dict[int, int]] = []

    class Watched(SimCLR):
        def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
            index, identity = (views[1][key].tolist() for key in ("index", "identity"))
            seen[-1] |= dict(zip(index, identity, strict=True))
            return super().step(views)

    def method(encoder: Encoder) -> nn.Module:
        seen.append({})
        return Watched(encoder, out_dim=16)

    run(tiny.parts(dataset=data, method=method, duplicates=duplicates), tmp_path)
    copied: dict[str, Callable[[int], bool]] = {
        "near": lambda i: i >= 190,
        "exact": lambda i: 190 <= i < 195,
        "keep": lambda i: False,
    }
    expected = [i - 190 if copied[duplicates](i) else i for i in range(200)]
    assert identities_kept(tmp_path).tolist() == expected
    assert len(seen) == 2
    assert all(known == expected[i] for stage in seen for i, known in stage.items())
    rate = {"near": "5.00% of 200", "exact": "2.50% of 200", "keep": "none of 200"}[duplicates]
    assert f"identities: {rate} samples" in caplog.text


@pytest.mark.parametrize("seed", range(4))
def test_like_pictures_and_equal_texts_make_identities_and_chains_run_through_both(seed: int) -> None:
    draw = rng.numpy_generator(seed, "texts")
    n = 60
    pictures = draw.integers(0, 250, (n, 16, 16), dtype=np.uint8)
    alike = draw.integers(0, n, (12, 2))
    for a, b in alike:
        pictures[b] = pictures[a]
    words = [f"text {i}" for i in draw.integers(0, 45, n)]
    written = [f" {word.replace(' ', '   ')}" if i % 3 else word for i, word in enumerate(words)]
    data = Captioned(arrays(pictures), written)

    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i in range(n):
        for j in range(i):
            if words[i] == words[j] or (pictures[i] == pictures[j]).all():
                a, b = sorted((root(i), root(j)))
                parent[b] = a
    expected = [root(i) for i in range(n)]
    for kind in ("near", "exact"):
        assert find_identities(data, kind).tolist() == expected
    assert find_identities(data, "keep").tolist() == list(range(n))
    assert len(set(expected)) < min(len(set(words)), len(np.unique(pictures, axis=0)))


def test_equal_texts_are_reported_in_the_line_of_the_copies(caplog: pytest.LogCaptureFixture) -> None:
    pictures = rng.numpy_generator(0, "texts").integers(0, 250, (40, 16, 16), dtype=np.uint8)
    pictures[1] = pictures[0]
    data = Captioned(arrays(pictures), ["caf\u00e9", "b", "cafe\u0301 ", *(f"text {i}" for i in range(37))])
    with caplog.at_level("INFO", "overtone"):
        report(find_identities(data), data.texts)
    assert "5.00% of 40 samples are copies or near-copies" in caplog.text
    assert "(1 group, the largest of 3; 2.50% have its text)" in caplog.text
    assert "set duplicates: exact, or keep where it is texts that are equal" in caplog.text
    assert find_identities(subset(data, [5, 0, 2])).tolist() == [0, 1, 1]
