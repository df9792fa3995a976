"""What happens to samples that become unreadable after the first pass."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import oracles
import pytest
import tiny
import torch
from PIL import Image
from torch.utils.data import DataLoader

from overtone import multistage
from overtone.contracts import Batch, Ids
from overtone.datasets import ImageDataset, image_folder, tones, trifeature
from overtone.embedding import embed
from overtone.encoders import build_encoder
from overtone.errors import DataError
from overtone.loading import chunks, loaded
from overtone.objectives import nt_xent
from overtone.recipe import build_parts, parse, resolved
from overtone.skipping import FILE, Replacing, noted

N, GONE, CUT = 60, 7, 31


def damaged(folder: Path) -> ImageDataset:
    """Pictures read when all were whole, of which one has been deleted and one damaged since."""
    (folder / "p").mkdir()
    draw = np.random.default_rng(0)
    for number in range(N):
        pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "p" / f"{number:02}.png")
    dataset = image_folder(folder / "p", cache="none")
    (folder / "p" / f"{GONE:02}.png").unlink()
    (folder / "p" / f"{CUT:02}.png").write_bytes(b"\x89PNG")
    return dataset


def loader_of(dataset: Replacing, batch_size: int, workers: int = 0) -> DataLoader[Batch]:
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=dataset.collate,
    )


def test_another_sample_stands_in_under_its_own_index_and_content(tmp_path: Path) -> None:
    dataset = damaged(tmp_path)
    replacing = Replacing(dataset, tmp_path)
    for index in range(N):
        sample = replacing[index]
        assert (sample["index"] == index) == (index not in (GONE, CUT))
        assert torch.equal(sample["image"], dataset[sample["index"]]["image"])


def test_which_one_depends_on_neither_workers_nor_slices_nor_what_was_read_before(tmp_path: Path) -> None:
    dataset = damaged(tmp_path)
    replacing = Replacing(dataset, tmp_path)
    expected = [replacing[index]["index"] for index in range(N)]
    for batch_size, workers in ((10, 0), (15, 2), (4, 1)):
        again = Replacing(dataset, tmp_path, max_bad_fraction=0.1)
        loader = loader_of(again, batch_size, workers)
        batches = list(noted(loader, again))
        assert torch.cat([batch["index"] for batch in batches]).tolist() == expected
        assert {len(batch["image"]) for batch in batches} == {batch_size}
    backwards = {index: replacing[index]["index"] for index in reversed(range(N))}
    assert [backwards[index] for index in range(N)] == expected


@pytest.mark.parametrize("cells", [1, 3])
def test_a_sample_that_stands_in_twice_is_neither_negative_nor_positive_of_itself(cells: int) -> None:
    index = torch.tensor([0, 1, 2, 3, 2, 5])  # sample 2 stands in for another
    embedded = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = embedded[:, index].flatten(0, 1)  # the same views of it: their draws belong to the index
    ids = Ids(cell=(index % cells).repeat(2), identity=index.repeat(2))
    positive = torch.arange(12).roll(6)
    loops = oracles.nt_xent(z, z, positive, ids, ids, 0.3)
    torch.testing.assert_close(nt_xent(z, z, positive, ids, ids, 0.3), loops, rtol=0, atol=1e-12)
    allowed = oracles.allowed_negatives(positive, ids, ids)
    same = index.repeat(2)[:, None] == index.repeat(2)
    assert not (allowed & same).any()


def test_each_is_warned_of_once_by_name_and_written_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replacing = Replacing(damaged(tmp_path), tmp_path, max_bad_fraction=0.1)
    for _ in range(3):
        loader = loader_of(replacing, 20, 1)
        list(noted(loader, replacing))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [words.split(":")[0] for words in warnings] == [
        "another sample takes the place of '07.png'",
        "another sample takes the place of '31.png'",
    ]
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [(line["index"], line["id"]) for line in lines] == [(GONE, "07.png"), (CUT, "31.png")]
    assert all("can no longer be read" in line["reason"] for line in lines)


def test_more_than_tolerated_end_the_run_with_exit_code_3_their_names_and_the_remedy(tmp_path: Path) -> None:
    replacing = Replacing(damaged(tmp_path), tmp_path, max_bad_fraction=0.01)
    loader = loader_of(replacing, 20)
    with pytest.raises(
        DataError, match=r"2 of 60 samples .* max_bad_fraction=0\.01: '07\.png', '31"
    ) as caught:
        list(noted(loader, replacing))
    assert caught.value.exit_code == 3
    assert "overtone resume" in str(caught.value)


def test_a_run_tolerates_as_many_as_its_recipe_says(tmp_path: Path) -> None:
    none = tiny.parts(dataset=damaged(tmp_path), stages=[tiny.FIRST], max_bad_fraction=0.0)
    with pytest.raises(DataError, match="max_bad_fraction=0:"):
        multistage.run(none, tmp_path / "none")
    multistage.run(dataclasses.replace(none, max_bad_fraction=0.1), tmp_path / "some")
    folder = {"source": "folder", "root": str(tmp_path / "p"), "max_bad_fraction": 0.25}
    recipe = parse({"data": folder, "stages": 1, "train": {"batch_size": 8}})
    assert build_parts(resolved(recipe), trifeature(80, image_size=16), None).max_bad_fraction == 0.25


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_are_gone_altogether_end_the_run_without_a_traceback_in_the_message(
    tmp_path: Path, workers: int
) -> None:
    replacing = Replacing(damaged(tmp_path), tmp_path)
    for file in (tmp_path / "p").iterdir():
        file.unlink()
    order, draws = chunks(range(N), 20), torch.Generator()
    with (
        pytest.raises(DataError, match=r"^p: '00\.png' can no longer be read.* take its place") as caught,
        loaded(replacing, order, num_workers=workers, generator=draws) as batches,
    ):
        list(noted(batches, replacing))
    assert "Traceback" not in str(caught.value)


def test_the_embedding_of_one_that_is_gone_is_that_of_the_one_that_stands_in(tmp_path: Path) -> None:
    replacing = Replacing(damaged(tmp_path), tmp_path, max_bad_fraction=0.1)
    embeddings = embed(build_encoder("small_cnn"), replacing)
    other = replacing[GONE]["index"]
    np.testing.assert_array_equal(embeddings[GONE], embeddings[other])
    assert (tmp_path / FILE).exists()


def test_mistakes_in_code_are_not_taken_for_damaged_samples(tmp_path: Path) -> None:
    class Broken(ImageDataset):
        def __getitem__(self, index: int) -> dict[str, object]:
            raise KeyError(index)

    dataset = damaged(tmp_path)
    dataset.__class__ = Broken
    with pytest.raises(KeyError):
        Replacing(dataset, tmp_path)[0]


def test_whole_data_pass_unchanged(tmp_path: Path) -> None:
    whole = tones(12)
    replacing = Replacing(whole, tmp_path)
    assert len(replacing) == 12
    assert (replacing.ids, replacing.fingerprint) == (whole.ids, whole.fingerprint)
    assert all(torch.equal(replacing[i]["series"], whole[i]["series"]) for i in range(12))
    assert type(replacing.collate([replacing[0], replacing[1]])) is dict
    assert not (tmp_path / FILE).exists()
