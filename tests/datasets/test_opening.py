"""One door: the path decides."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import pairs_of, png, write_files, write_parquet, write_tar
from PIL import Image

from overtone.datasets import Captioned, ImageDataset, open_dataset, open_source
from overtone.errors import DataError


def test_each_kind_of_path_is_opened_by_its_reader(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(file.getvalue())
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"image": [file.getvalue()]}), tmp_path / "tables/a.parquet")
    np.save(tmp_path / "a.npy", pixels[None])
    np.savez(tmp_path / "a.npz", pixels[None])
    for place in ("pictures", "tables", "tables/a.parquet"):
        assert (open_dataset(tmp_path / place)[0]["image"].numpy() == pixels.transpose(2, 0, 1)).all()
    for place in ("a.npy", "a.npz"):
        dataset = open_dataset(tmp_path / place, channels_last=True)
        assert (dataset[0]["image"].numpy() == pixels.transpose(2, 0, 1)).all()


def test_layouts_with_texts_are_recognised_and_img2datasets_own_tables_are_not_taken_for_data(
    tmp_path: Path,
) -> None:
    write_files(tmp_path / "files", pairs_of(3, "00000/"))
    write_tar(tmp_path / "tars/00000.tar", pairs_of(3))
    for place in ("files", "tars"):
        write_parquet(tmp_path / place / "00000.parquet", {"url": ["x"]})
    (tmp_path / "files/00000_stats.json").write_text("{}")
    (tmp_path / "all.tsv").write_text("filepath\ttitle\nfiles/00000/0001.png\tred 1\n")
    for place, count in (
        ("files", 3),
        ("tars", 3),
        ("tars/00000.tar", 3),
        ("tars/{00000..00000}.tar", 3),
        ("all.tsv", 1),
    ):
        dataset = open_dataset(tmp_path / place)
        assert isinstance(dataset, Captioned)
        assert [dataset[i]["text"] for i in range(count)] == [f"red {i + (count == 1)}" for i in range(count)]
        assert len(open_source(tmp_path / place).ids) == count
    write_files(tmp_path / "plain", {"1.png": png(1), "readme.txt": b"no caption"})
    assert isinstance(open_dataset(tmp_path / "plain"), ImageDataset)


def test_anything_else_is_an_error_that_lists_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*\.parquet.*\.npy.*\.tar, \.csv or"):
        open_dataset(tmp_path / "nothing")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DataError, match="is no such file"):
        open_dataset(tmp_path / "a.zip")
    with pytest.raises(DataError, match="no images"):
        open_dataset(tmp_path.joinpath("empty").absolute().parent)
