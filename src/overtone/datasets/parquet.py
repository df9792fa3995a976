"""Pictures in parquet files, as Hugging Face stores them, read with pyarrow alone."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from overtone.datasets.captioned import Captioned, read_captioned
from overtone.datasets.folder import files_in
from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.labels import Labels, is_attribute, labelled
from overtone.datasets.reading import Reading, read_images
from overtone.datasets.texts import Captions
from overtone.errors import DataError, RecipeError

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)


@overload
def parquet(
    path: Paths,
    *,
    image: str = ...,
    text: None = ...,
    key: str | None = ...,
    follow_links: bool = ...,
    **options: Unpack[Reading],
) -> ImageDataset: ...


@overload
def parquet(
    path: Paths,
    *,
    image: str = ...,
    text: str,
    key: str | None = ...,
    follow_links: bool = ...,
    **options: Unpack[Reading],
) -> Captioned: ...


def parquet(
    path: Paths,
    *,
    image: str = "image",
    text: str | None = None,
    key: str | None = None,
    follow_links: bool = False,
    **options: Unpack[Reading],
) -> ImageDataset | Captioned:
    """A dataset from parquet files whose column `image` holds image files, as bytes or {bytes, path}.

    Columns of text, whole numbers (floats without fractions too, as pandas writes labels of which some are
    missing) or truth values with at most 1,000 distinct values, and at most half as many as rows, become
    attributes; names of classes come from the Hugging Face metadata. Ids are `file:row`, or what a column
    says.

    Args:
        path: A file, a folder of .parquet files, or a list of files.
        image: The column with the pictures.
        text: A column with a text each, which makes the dataset `Captioned`; for paths instead of pictures,
            see `captions`.
        key: A column whose values are the ids.
        follow_links: Take links that leave the folder, and enter linked subfolders.
        **options: See `Reading`.

    Raises:
        DataError: A file is missing, damaged, or a link that leaves the folder, or has other columns than
            the first.
        RecipeError: There is no such column of pictures or of text.

    >>> import io, tempfile
    >>> from PIL import Image
    >>> Image.new("RGB", (8, 8)).save(file := io.BytesIO(), "PNG")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table({"image": [file.getvalue()], "label": [3]}), f"{folder}/a.parquet")
    ...     dataset = parquet(folder)
    >>> dataset.ids, dataset.image_shape, dataset.labels
    (['a.parquet:0'], (3, 8, 8), {'label': array([3])})
    """
    source, captions = parquet_source(path, image, text, key, follow_links=follow_links)
    return read_images(source, **options) if captions is None else read_captioned(source, captions, **options)


def parquet_source(
    path: Paths,
    image: str = "image",
    text: str | None = None,
    key: str | None = None,
    *,
    follow_links: bool = False,
) -> tuple[Source, Captions | None]:
    """The pictures of `parquet`, not yet read, and the texts of a column."""
    files = _files(path, follow_links)
    tables = [parquet_file(file) for file in files]
    schema = tables[0].schema_arrow
    _check_columns(files, tables, image)
    counts = [table.metadata.num_rows for table in tables]
    name = files[0].name if len(files) == 1 else f"{files[0].parent.name}/*.parquet"
    names = _unique_names(files)
    ids = [f"{file}:{row}" for file, count in zip(names, counts, strict=True) for row in range(count)]
    if key is not None:
        values = raw_texts(columns_of(tables, [key], name), key, name)
        ids = [os.fsdecode(value or b"") for value in values]
    columns, passed = _candidates(schema, (image, text, key))
    labels = _attributes(columns_of(tables, columns, name), passed, _class_names(schema), sum(counts), name)
    captions = None
    if text is not None:
        captions = Captions.of(raw_texts(columns_of(tables, [text], name), text, name))
    return Source(
        name, ids, _Rows(files, image), labels.codes, labels.names, _stamp(files, image, key)
    ), captions


def raw_texts(table: pa.Table, column: str, name: str) -> Iterator[bytes | None]:
    """The cells of a column of text as they are stored: it is for others to say whether they are UTF-8.

    Raises:
        RecipeError: There is no such column, or it holds something else.
    """
    if column not in table.column_names:
        raise RecipeError(
            f"{name} has no column {column!r}; there are {', '.join(map(repr, table.column_names))}"
        )
    cells = table.column(column)
    kind = cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type
    if not any(is_kind(kind) for is_kind in _TEXT):
        raise RecipeError(f"{name}: column {column!r} holds {kind}; expected text")
    if kind is not cells.type:
        cells = cells.cast(kind)
    return (cell.as_py() for chunk in cells.cast(pa.large_binary()).chunks for cell in chunk)


def columns_of(tables: Sequence[pq.ParquetFile], columns: list[str], name: str) -> pa.Table:
    """Some columns of files that have the same ones.

    Raises:
        DataError: They are damaged.
        RecipeError: There are no such.
    """
    there = tables[0].schema_arrow.names
    if missing := set(columns) - set(there):
        raise RecipeError(f"{name} has no column {missing.pop()!r}; there are {', '.join(map(repr, there))}")
    try:
        return pa.concat_tables([table.read(columns=columns).select(columns) for table in tables])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: its columns {', '.join(columns)} cannot be read: {error}") from error


@overload
def hugging_face(
    dataset: Any, *, image: str | None = ..., text: None = ..., **options: Unpack[Reading]
) -> ImageDataset: ...


@overload
def hugging_face(
    dataset: Any, *, image: str | None = ..., text: str, **options: Unpack[Reading]
) -> Captioned: ...


def hugging_face(
    dataset: Any, *, image: str | None = None, text: str | None = None, **options: Unpack[Reading]
) -> ImageDataset | Captioned:
    """A dataset from a `datasets.Dataset` (one split), with the attributes that `parquet` would find.

    Args:
        dataset: The split, e.g. `load_dataset("cifar10", split="train")`.
        image: The column with the pictures; None: the only one there is.
        text: A column with a text each, which makes the dataset `Captioned`.
        **options: See `Reading`.

    Raises:
        RecipeError: It is no single split, or has no such column.
    """
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise RecipeError('hugging_face needs the package datasets: pip install "overtone[hub]"') from error
    if not isinstance(dataset, datasets.Dataset):
        raise RecipeError(
            f"expected a datasets.Dataset, got {type(dataset).__name__}; choose one split of it"
        )
    pictures = [name for name, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
    if image is None and len(pictures) == 1:
        image = pictures[0]
    if image is None or image not in pictures:
        raise RecipeError(
            f"image={image!r} is no column of pictures; there are {', '.join(dataset.column_names)}"
        )
    raw = dataset.with_format(None).cast_column(image, datasets.Image(decode=False))
    schema = dataset.features.arrow_schema
    columns, passed = _candidates(schema, (image, text))
    values = dataset.select_columns(columns).with_format("arrow")[:] if columns else pa.table({})
    labels = _attributes(values, passed, _class_names(schema), len(dataset), "hugging_face")

    ids = list(map(str, range(len(dataset))))
    read = partial(_cell, raw, image)
    stamp = repr((dataset._fingerprint, image))
    source = Source("hugging_face", ids, read, labels.codes, labels.names, stamp)
    if text is None:
        return read_images(source, **options)
    if text not in dataset.column_names:
        raise RecipeError(f"text={text!r} is no column; there are {', '.join(dataset.column_names)}")
    written = dataset.select_columns([text]).with_format("arrow")[:]
    return read_captioned(source, Captions.of(raw_texts(written, text, "hugging_face")), **options)


def _cell(dataset: Any, column: str, row: int) -> bytes:
    return _bytes(dataset[row][column])


def _bytes(value: Any) -> bytes:
    """The file in a cell that is bytes, or {bytes, path}."""
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            return Path(value["path"]).read_bytes()
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise ValueError("an empty cell")
    return value


class _Rows:
    """Reads one row's image file. Rows are kept by row group: going through in order reads each once."""

    def __init__(self, files: Sequence[Path], column: str) -> None:
        self._arguments = files, column
        groups = [(t, g) for t in map(pq.ParquetFile, files) for g in range(t.metadata.num_row_groups)]
        ends = accumulate(t.metadata.row_group(g).num_rows for t, g in groups)
        self._starts = [0, *ends]

        @lru_cache(maxsize=2)
        def group(number: int) -> pa.ChunkedArray:
            table, inner = groups[number]
            # Arrow's own threads would not survive the fork of a data loader's worker.
            cells = table.read_row_group(inner, columns=[column], use_threads=False).column(column)
            # Of {bytes, path} only the bytes: a file must not name other files to read.
            return pc.struct_field(cells, "bytes") if pa.types.is_struct(cells.type) else cells

        self._group = group

    def __reduce__(self) -> tuple[type[_Rows], tuple[Sequence[Path], str]]:
        return _Rows, self._arguments  # an open file cannot go to another process

    def __call__(self, row: int) -> bytes:
        number = bisect_right(self._starts, row) - 1
        return _bytes(self._group(number)[row - self._starts[number]].as_py())


def _files(path: Paths, follow_links: bool) -> list[Path]:
    if not isinstance(path, (str, os.PathLike)):
        files = [Path(one) for one in path]
    elif Path(path).is_dir():
        files = sorted(Path(path, name) for name in files_in(Path(path), (".parquet",), follow_links))
    else:
        files = [Path(path)]
    if not files:
        raise DataError(f"{path}: no .parquet file in it (in folder {Path.cwd()})")
    return files


def _unique_names(files: Sequence[Path]) -> list[str]:
    """Each file's path from the folder they share: the same wherever that folder lies."""
    if len(files) == 1:
        return [files[0].name]
    root = os.path.commonpath([file.resolve().parent for file in files])
    return [file.resolve().relative_to(root).as_posix() for file in files]


def parquet_file(file: Path) -> pq.ParquetFile:
    """A parquet file, of which only the end has been read.

    Raises:
        DataError: It is missing or damaged.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file (in folder {Path.cwd()}); expected a .parquet file")
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: not a readable parquet file: {error}") from error


def _check_columns(files: Sequence[Path], tables: Sequence[pq.ParquetFile], image: str) -> None:
    first = tables[0].schema_arrow
    if image not in first.names or not _holds_files(first.field(image).type):
        pictures = [name for name in first.names if _holds_files(first.field(name).type)]
        raise RecipeError(
            f"image={image!r}: {files[0].name} has no such column of pictures; "
            f"give image={' or '.join(map(repr, pictures)) or '... none of ' + repr(first.names) + ' is one'}"
        )
    for file, table in zip(files, tables, strict=True):
        if not table.schema_arrow.equals(first):
            raise DataError(
                f"{file.name}: its columns {table.schema_arrow.names} or their types differ from those "
                f"of {files[0].name}, {first.names}; read them apart"
            )


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return kind in (pa.binary(), pa.large_binary())


def _candidates(schema: pa.Schema, used: Sequence[str | None]) -> tuple[list[str], dict[str, str]]:
    """The columns that can be attributes by their type, and the type of each other one that is not used."""
    kinds = {name: schema.field(name).type for name in schema.names if name not in used}
    columns = [name for name, kind in kinds.items() if _simple(kind)]
    return columns, {name: str(kind).partition("<")[0] for name, kind in kinds.items() if not _simple(kind)}


def _simple(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_integer, types.is_boolean, types.is_string, types.is_large_string, types.is_floating)
    return any(test(kind) for test in tests)


def _attributes(
    table: pa.Table, passed: Mapping[str, str], names: Mapping[str, Sequence[str]], n_rows: int, where: str
) -> Labels:
    """Of the candidates those with few values; the others are logged, with those `passed` over before."""
    kept, ignored = {}, dict(passed)
    for column in table.column_names:
        values = _whole(table.column(column))
        if values is None:
            ignored[column] = "fractions"
        elif column in names or is_attribute(pc.count_distinct(values).as_py(), n_rows):
            kept[column] = values.to_pylist()
        else:
            ignored[column] = "too many distinct values"
    if ignored:
        told = ", ".join(f"{column!r} ({why})" for column, why in ignored.items())
        logger.info("%s: no attribute: %s", where, told)
    return labelled(kept, {name: names[name] for name in kept if name in names}, n_rows, where)


def _whole(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Floats as the whole numbers they are, NaN as missing; None where one is a fraction."""
    if not pa.types.is_floating(values.type):
        return values
    values = values.cast(pa.float64())
    try:
        return pc.if_else(pc.is_nan(values), None, values).cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _class_names(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """Column -> names of its codes; metadata that say otherwise than Hugging Face's are passed over."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = dict(metadata.get("info", {}).get("features", {}))
    except (ValueError, RecursionError, AttributeError, TypeError):
        logger.warning("parquet: the metadata of Hugging Face are damaged, so classes go by their numbers")
        return {}
    return {name: feature["names"] for name, feature in features.items() if _is_class_label(feature)}


def _is_class_label(feature: Any) -> bool:
    names = feature.get("names") if isinstance(feature, dict) else None
    return (
        isinstance(names, list)
        and feature.get("_type") == "ClassLabel"
        and all(isinstance(name, str) for name in names)
    )


def _stamp(files: Sequence[Path], image: str, key: str | None) -> str:
    """Of the column of ids too, since a cache keeps a fingerprint that holds them."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.blake2b(repr((image, key, stats)).encode(), digest_size=16).hexdigest()
