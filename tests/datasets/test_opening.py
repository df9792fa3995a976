"""One door: the path decides."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from overtone.datasets import open_dataset
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


def test_anything_else_is_an_error_that_lists_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*\.parquet.*\.npy"):
        open_dataset(tmp_path / "nothing")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DataError, match="is no such file"):
        open_dataset(tmp_path / "a.zip")
    with pytest.raises(DataError, match="no images"):
        open_dataset(tmp_path.joinpath("empty").absolute().parent)
