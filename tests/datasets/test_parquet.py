"""Parquet files as Hugging Face writes them, against `datasets` itself where it is installed."""

from __future__ import annotations

import json
import logging
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from overtone.datasets import ImageDataset, hugging_face, parquet
from overtone.errors import DataError, RecipeError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def png(value: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path, n: int = 40, *, plain: bool = False, names: list[str] | None = None, start: int = 0
) -> Path:
    values = range(start, start + n)
    files = [png(value) for value in values]
    columns: dict[str, Any] = {
        "image": files if plain else [{"bytes": one, "path": None} for one in files],
        "label": [value % 2 for value in values],
        "kind": [("even", None)[value % 2] for value in values],
        "caption": [f"picture {value}" for value in values],
        "weight": [0.5 * value for value in values],
    }
    table = pa.table(columns)
    if names:
        feature = {"label": {"_type": "ClassLabel", "names": names}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    pq.write_table(table, path, row_group_size=7)
    return path


@pytest.mark.parametrize("plain", [False, True])
def test_pictures_labels_and_ids_come_from_the_columns(tmp_path: Path, plain: bool) -> None:
    dataset = parquet(write(tmp_path / "train.parquet", plain=plain, names=["nought", "one"]))
    assert [int(dataset[i]["image"][0, 0, 0]) for i in range(40)] == list(range(40))
    assert dataset.labels["label"].tolist() == [0, 1] * 20
    assert dataset.label_names["label"] == ("nought", "one")
    assert dataset.labels["kind"].tolist() == [0, -1] * 20
    assert (dataset.ids[0], dataset.ids[39]) == ("train.parquet:0", "train.parquet:39")
    assert set(dataset.labels) == {"label", "kind"}  # neither the captions nor the weights


def test_a_folder_and_a_list_of_files_are_one_dataset(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}.parquet", 10, start=10 * i) for i in range(3)]
    folder, listed = parquet(tmp_path), parquet(files)
    assert [int(folder[i]["image"][0, 0, 0]) for i in range(30)] == list(range(30))
    assert folder.fingerprint == listed.fingerprint
    assert (folder.ids[29], listed.ids[29]) == ("2.parquet:9", "2.parquet:9")


def test_random_access_without_a_cache_reads_the_right_rows(tmp_path: Path) -> None:
    dataset = parquet(write(tmp_path / "a.parquet"), cache="none")
    for row in np.random.default_rng(0).permutation(40).tolist():
        assert int(dataset[row]["image"][0, 0, 0]) == row


def test_a_dataset_that_decodes_on_access_can_go_to_another_process(tmp_path: Path) -> None:
    dataset = parquet(write(tmp_path / "a.parquet"), cache="none")
    assert int(pickle.loads(pickle.dumps(dataset))[23]["image"][0, 0, 0]) == 23


def test_an_empty_cell_is_left_out(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(0), None, png(2)]}), tmp_path / "a.parquet")
    dataset = parquet(tmp_path / "a.parquet")
    assert (len(dataset), dataset.quarantined) == (2, [("a.parquet:1", "an empty cell")])


def test_a_cell_that_names_a_file_does_not_make_it_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    cells = [{"bytes": png(0), "path": None}, {"bytes": None, "path": str(tmp_path / "secret.png")}]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    assert parquet(tmp_path / "a.parquet").quarantined == [("a.parquet:1", "an empty cell")]


def test_another_column_of_the_same_file_never_comes_from_the_cache_of_the_first(tmp_path: Path) -> None:
    columns = {"one": [png(1), png(2)], "other": [png(3), png(4)], "name": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    def read(image: str, key: str | None = None) -> ImageDataset:
        kept = tmp_path / "kept"
        return parquet(tmp_path / "a.parquet", image=image, key=key, cache="disk", cache_dir=kept)

    first, second, named = read("one"), read("other"), read("one", key="name")
    assert [int(dataset[1]["image"][0, 0, 0]) for dataset in (first, second, named)] == [2, 4, 2]
    assert named.fingerprint == parquet(tmp_path / "a.parquet", image="one", key="name").fingerprint


def written_by_pandas(path: Path) -> Path:
    """30 pictures; their species is missing in every third, which makes a column of floats of it."""
    days = pa.array(range(30), pa.date32())
    columns = {
        "image": [png(value) for value in range(30)],
        "species": [None if value % 3 == 0 else float(value % 3) for value in range(30)],
        "group": [float("nan") if value % 3 == 0 else 4.0 for value in range(30)],
        "weight": [value + 0.5 for value in range(30)],
        "endless": [float("inf")] * 30,
        "note": [f"number {value}" for value in range(30)],
        "day": days,
    }
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return path


def test_whole_numbers_with_missing_ones_which_pandas_writes_as_floats_are_labels(tmp_path: Path) -> None:
    dataset = parquet(written_by_pandas(tmp_path / "a.parquet"))
    assert dataset.labels["species"].tolist() == [-1, 1, 2] * 10
    assert dataset.label_names["species"] == ("0", "1", "2")
    assert dataset.labels["group"].tolist() == [-1, 4, 4] * 10
    assert set(dataset.labels) == {"species", "group"}


def test_every_column_that_is_no_attribute_is_logged_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        parquet(written_by_pandas(tmp_path / "a.parquet"))
    assert (
        "a.parquet: no attribute: 'day' (date32[day]), 'weight' (fractions), 'endless' (fractions), "
        "'note' (too many distinct values)"
    ) in caplog.messages


def test_a_wrong_column_is_an_error_that_names_the_right_one(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    for column in ("img", "label"):
        with pytest.raises(RecipeError, match="give image='image'"):
            parquet(tmp_path / "a.parquet", image=column)


def test_wrong_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.parquet file"):
        parquet(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        parquet(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a readable parquet file"):
        parquet(tmp_path / "text.parquet")


def test_files_with_other_columns_are_an_error_with_both_lists(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [png(0)]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: its columns \['image'\].*a\.parquet"):
        parquet(tmp_path)


def test_a_label_without_a_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label 1 of 'label' has no name"):
        parquet(write(tmp_path / "a.parquet", names=["only"]))


def test_a_hugging_face_dataset_equals_its_parquet_file(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write(tmp_path / "a.parquet", names=["nought", "one"])
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["nought", "one"]),
            "kind": datasets.Value("string"),
            "caption": datasets.Value("string"),
            "weight": datasets.Value("float64"),
        }
    )
    split = datasets.Dataset(pq.read_table(tmp_path / "a.parquet").cast(features.arrow_schema))
    one, other = hugging_face(split), parquet(tmp_path / "a.parquet")
    assert {k: v.tolist() for k, v in one.labels.items()} == {k: v.tolist() for k, v in other.labels.items()}
    assert one.label_names == other.label_names
    assert all((one[i]["image"] == other[i]["image"]).all() for i in range(40))
    with pytest.raises(RecipeError, match="no column of pictures"):
        hugging_face(split, image="label")
    with pytest.raises(RecipeError, match="one split"):
        hugging_face(datasets.DatasetDict(train=split))


def test_a_hugging_face_dataset_has_the_labels_that_pandas_wrote_as_floats(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    split = datasets.Dataset(pq.read_table(written_by_pandas(tmp_path / "a.parquet")))
    dataset = hugging_face(split.cast_column("image", datasets.Image()))
    assert dataset.labels["species"].tolist() == [-1, 1, 2] * 10
    assert set(dataset.labels) == {"species", "group"}


def test_another_column_of_a_hugging_face_dataset_never_comes_from_the_cache_of_the_first(
    tmp_path: Path,
) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"one": datasets.Image(), "other": datasets.Image()})
    split = datasets.Dataset.from_dict(
        {name: [{"bytes": png(value), "path": None}] for name, value in (("one", 1), ("other", 2))}, features
    )
    for name, value in (("one", 1), ("other", 2), ("one", 1)):
        dataset = hugging_face(split, image=name, cache="disk", cache_dir=tmp_path)
        assert int(dataset[0]["image"][0, 0, 0]) == value


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not beside the repository")
def test_cifar_has_its_classes_and_pictures_as_pillow_decodes_them() -> None:
    file = SHARED / "cifar10" / "test.parquet"
    dataset = parquet(file, limit=50)
    rows = pq.ParquetFile(file).read_row_group(0).slice(0, 50).to_pylist()
    assert dataset.label_names["label"][:3] == ("airplane", "automobile", "bird")
    assert dataset.labels["label"].tolist() == [row["label"] for row in rows]
    for i, row in enumerate(rows):
        pixels = np.asarray(Image.open(BytesIO(row["image"]["bytes"])).convert("RGB"))
        assert (dataset[i]["image"].numpy() == pixels.transpose(2, 0, 1)).all()
