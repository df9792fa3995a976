"""Pairs in tar shards: offsets against Python's tar reader, and all that a tar may hold and should not."""

from __future__ import annotations

import gzip
import io
import logging
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import Members, pairs_of, png, write_files, write_parquet, write_tar

from overtone.datasets import pairs, parquet, tar_index, webdataset
from overtone.datasets.tar_index import KINDS, read_member, scan
from overtone.datasets.webdataset import expanded, shards_of
from overtone.errors import DataError, RecipeError


def entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size, link
    return made


def write_entries(path: Path, entries: list[tarfile.TarInfo], members: Members | None = None) -> Path:
    """Entries of any kind without content, then plain members."""
    with tarfile.open(path, "w") as tar:
        for one in entries:
            tar.addfile(one, io.BytesIO(bytes(one.size)))
        for name, content in (members or {}).items():
            tar.addfile(entry(name, size=len(content)), io.BytesIO(content))
    return path


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_offset_gives_what_tarfile_extracts(tmp_path: Path, form: int) -> None:
    long = "deep/" * (15 if form == tarfile.USTAR_FORMAT else 60)
    members = {**pairs_of(5), **{f"{long}{i}.jpg": bytes([i]) * (i * 300) for i in range(8)}}
    if form != tarfile.USTAR_FORMAT:
        members |= {f"ünï{i}.{'e' * 120}.txt": b"ignored" for i in range(3)} | {"ünïcode.TXT": "ü".encode()}
    path = write_tar(tmp_path / "a.tar", members, form)
    with tarfile.open(path) as tar:
        extracted = {}
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            extracted[member.name] = content.read()
    found = scan(path)
    read = {(key, KINDS[kind]): read_member(path, offset, size) for key, kind, offset, size in found.members}
    expected = {
        (
            name.rpartition("/")[0] + "/" * ("/" in name) + Path(name).name.split(".")[0],
            suffix.lower(),
        ): content
        for name, content in extracted.items()
        if (suffix := Path(name).name.partition(".")[2]).lower() in KINDS
    }
    assert read == expected
    assert (found.damage, found.refused, found.ignored) == ("", {}, len(extracted) - len(expected))


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=8),
    missing=st.sets(st.tuples(st.integers(0, 7), st.sampled_from(["png", "txt"])), max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_tars_files_and_parquet_of_the_same_data_give_the_same_samples(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    missing: set[tuple[int, str]],
    order: object,
) -> None:
    home = tmp_path_factory.mktemp("same")
    members = {}
    for i, text in enumerate(["fine", *texts]):
        shard = "00000" if i % 2 else "00001"
        for kind, content in (("png", png(i)), ("txt", text.encode())):
            if (i - 1, kind) not in missing:
                members[f"{shard}/{i:03}.{kind}"] = content
    files = pairs(write_files(home / "files", members), max_bad_fraction=1)
    for shard in {name[:5] for name in members}:
        inside = [name for name in members if name.startswith(shard)]
        order.shuffle(inside)  # type: ignore[attr-defined]
        write_tar(home / f"tars/{shard}.tar", {name[6:]: members[name] for name in inside})
    if not (home / "tars/00000.tar").exists():
        write_tar(home / "tars/00000.tar", {})
    tars = webdataset(home / "tars", max_bad_fraction=1)
    keys = sorted({name[:-4] for name in members})
    columns: dict[str, list[object]] = {
        "key": list(keys),
        "image": [members.get(f"{key}.png") for key in keys],
        "text": [members.get(f"{key}.txt", b"").decode() for key in keys],
    }
    table = parquet(write_parquet(home / "a.parquet", columns), text="text", key="key", max_bad_fraction=1)

    def samples(dataset: object) -> dict[str, tuple[str, list[int]]]:
        return {
            name: (dataset[row]["text"], dataset[row]["image"].flatten().tolist())  # type: ignore[index]
            for row, name in enumerate(dataset.ids)  # type: ignore[attr-defined]
        }

    assert samples(files) == samples(tars) == samples(table)
    left_out = [{name for name, _ in dataset.quarantined} for dataset in (files, tars, table)]
    assert left_out[0] == left_out[1] == left_out[2]


def test_a_key_repeats_in_another_shard_and_members_of_one_key_lie_apart(tmp_path: Path) -> None:
    members = pairs_of(6)
    apart = {name: members[name] for name in sorted(members, key=lambda name: (name[-3:], name[::-1]))}
    write_tar(tmp_path / "b.tar", apart)
    write_tar(tmp_path / "a.tar", {name: png(9) if "png" in name else b"nine" for name in members})
    dataset = webdataset([tmp_path / "b.tar", tmp_path / "a.tar"])
    found = {
        name: (dataset.texts[i], int(dataset[i]["image"][0, 0, 0])) for i, name in enumerate(dataset.ids)
    }
    assert found == {f"b/{i:04}": (f"red {i}", i) for i in range(6)} | {
        f"a/{i:04}": ("nine", 9) for i in range(6)
    }


def test_any_sample_is_read_in_another_process_without_a_cache(tmp_path: Path) -> None:
    dataset = webdataset(write_tar(tmp_path / "a.tar", pairs_of(6)), cache="none")
    again = pickle.loads(pickle.dumps(dataset))
    assert [(int(again[i]["image"][0, 0, 0]), again[i]["text"]) for i in (5, 0)] == [
        (5, "red 5"),
        (0, "red 0"),
    ]


def test_classes_and_json_fields_are_read(tmp_path: Path) -> None:
    members = {**pairs_of(4), "0000.cls": b"3", "0002.cls": b"x", "0001.json": b'{"caption": "one"}'}
    dataset = webdataset(write_tar(tmp_path / "a.tar", members))
    assert dataset.labels["class"].tolist() == [3, -1, -1, -1]
    only = webdataset(tmp_path / "a.tar", text="json:caption", max_bad_fraction=1)
    assert (only.ids, list(only.texts)) == (["a/0001"], ["one"])


def test_the_index_is_kept_beside_the_shards_or_in_the_cache_and_holds_no_pickle(tmp_path: Path) -> None:
    shards = [write_tar(tmp_path / f"s/{i}.tar", pairs_of(3)) for i in range(2)]
    made = tar_index.tar_index(shards)
    kept = sorted(path for path in (tmp_path / "s").rglob("*") if path.is_file() and path.suffix != ".tar")
    assert [path.name for path in kept] == ["ids.npy", "index.json", "members.npy"]
    for path in kept[0], kept[2]:
        np.load(path, allow_pickle=False)
    again = tar_index.tar_index(shards)
    assert again.ids == made.ids == [f"{shard}/{i:04}" for shard in (0, 1) for i in range(3)]
    assert (again.members == made.members).all()
    other = tar_index.tar_index([write_tar(tmp_path / "t/0.tar", pairs_of(3))], tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("tars-*"))) == 1
    assert not list((tmp_path / "t").glob(".*"))
    assert other.kinds() == {"png": 3, "txt": 3}


def test_a_shard_that_changed_has_the_index_made_again_with_a_warning_that_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", pairs_of(3))
    webdataset(tmp_path)
    write_tar(tmp_path / "b.tar", pairs_of(4))
    assert len(webdataset(tmp_path)) == 7
    assert "1 of 2 shards have changed since, first b.tar; the index is made again" in caplog.text
    caplog.clear()
    os.utime(tmp_path / "a.tar", ns=(1, 1))
    webdataset(tmp_path)
    assert "first a.tar" in caplog.text
    assert len(list(tmp_path.glob(".overtone-index/*"))) == 1
    caplog.clear()
    with caplog.at_level(logging.INFO, "overtone"):
        webdataset(tmp_path)
    assert "looks for the members" not in caplog.text


def test_an_index_that_cannot_be_kept_is_said_and_one_that_is_damaged_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = write_tar(tmp_path / "a.tar", pairs_of(3))
    (tmp_path / "file").write_text("in the way")
    assert len(webdataset(shard, cache_dir=tmp_path / "file" / "cache", cache="none")) == 3
    assert "cannot be kept" in caplog.text
    webdataset(shard)
    for name, content in (("members.npy", b"hello"), ("index.json", b'{"version": 0}')):
        next(tmp_path.glob(f".overtone-index/*/{name}")).write_bytes(content)
        with pytest.raises(DataError, match=r"this index of tars is damaged.*delete it"):
            webdataset(shard)


@pytest.mark.parametrize("field", ["sample", "shard", "kind", "offset", "size"])
@pytest.mark.parametrize("value", [-1, 2**31 - 1])
def test_an_index_that_came_with_the_shards_cannot_point_outside_of_them(
    tmp_path: Path, field: str, value: int
) -> None:
    shard = write_tar(tmp_path / "a.tar", pairs_of(3))
    webdataset(shard)
    file = next(tmp_path.glob(".overtone-index/*/members.npy"))
    members = np.load(file)
    members[field][4] = value
    np.save(file, members)
    with pytest.raises(DataError, match=r"damaged|ends before byte|cannot be read"):
        webdataset(shard, max_bad_fraction=0)


def test_links_devices_and_names_that_lead_out_are_refused_and_counted_with_their_shard(
    tmp_path: Path,
) -> None:
    bad = [
        entry("../0007.png", size=9),
        entry("/etc/0008.txt", size=4),
        entry("a/../../0009.txt", size=4),
        entry("0010.txt", tarfile.SYMTYPE, link="/etc/passwd"),
        entry("0011.txt", tarfile.LNKTYPE, link="0000.txt"),
        entry("0012.png", tarfile.CHRTYPE),
        entry("0013.png", tarfile.BLKTYPE),
        entry("0014.png", tarfile.FIFOTYPE),
        entry("folder.png", tarfile.DIRTYPE),
    ]
    write_entries(tmp_path / "x.tar", bad, pairs_of(3))
    dataset = webdataset(tmp_path / "x.tar", max_bad_fraction=0)
    assert dataset.ids == ["x/0000", "x/0001", "x/0002"]
    assert set(dataset.quarantined) == {
        ("x.tar", "3 x a name that leads out of the archive"),
        ("x.tar", "2 x a link"),
        ("x.tar", "3 x no plain file"),
    }


@pytest.mark.parametrize("size", [8**11 - 1, 2**62, 2**86, -512])
@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_a_declared_size_is_never_believed(tmp_path: Path, kind: bytes, size: int) -> None:
    header = bytearray(entry("0009.png", kind).tobuf())
    # Beyond 8 GB, and below 0, as GNU writes it: in binary behind a byte 0x80 or 0xff.
    header[124:136] = (
        b"%011o\0" % size if 0 < size < 8**11 else bytes([128]) + size.to_bytes(11, "big", signed=True)
    )
    header[124] = 255 if size < 0 else header[124]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    good = write_tar(tmp_path / "a.tar", pairs_of(2)).read_bytes()
    _, _, offset, length = scan(tmp_path / "a.tar").members[-1]
    (tmp_path / "a.tar").write_bytes(good[: offset + length + -length % 512] + header + bytes(2048))
    found = scan(tmp_path / "a.tar")
    assert len(found.members) == 4
    assert found.damage


def test_more_members_than_the_cap_and_larger_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_index, "MOST_MEMBERS", 1_000)
    block = entry("a.txt").tobuf()
    (tmp_path / "many.tar").write_bytes(block * 100_000 + bytes(1024))
    found = scan(tmp_path / "many.tar")
    assert found.damage == "more than 1,000 members; the others are not read"
    assert found.refused == {"a second member of its name": 999}
    monkeypatch.setattr(tar_index, "MOST_BYTES", 100)
    found = scan(write_tar(tmp_path / "large.tar", {"a.png": bytes(101), "a.txt": bytes(100)}))
    assert [key for key, *_ in found.members] == ["a"]
    assert found.refused == {"more than 100 bytes": 1}


@pytest.mark.parametrize("chain", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_endless_chain_of_headers_is_damage_and_no_crash(tmp_path: Path, chain: bytes) -> None:
    (tmp_path / "chain.tar").write_bytes(entry("x", chain).tobuf() * 20_000 + bytes(1024))
    assert scan(tmp_path / "chain.tar").damage


def test_a_truncated_shard_gives_what_lies_before_the_cut_wherever_that_is(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", pairs_of(4)).read_bytes()
    members = scan(tmp_path / "whole.tar").members
    for cut in range(0, members[-1][2] + 513, 173):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        found = scan(tmp_path / "cut.tar")
        assert found.members == [one for one in members if one[2] + one[3] <= cut]
        assert found.damage


def test_a_damaged_header_in_the_middle_is_no_silent_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pairs_of(4))
    _, _, offset, size = scan(path).members[3]
    content = bytearray(path.read_bytes())
    content[offset + size + (-size % 512) + 150] ^= 0xFF
    path.write_bytes(content)
    assert scan(path).damage.startswith("damaged at byte")
    assert len(scan(path).members) == 4
    dataset = webdataset([path, write_tar(tmp_path / "b.tar", pairs_of(4))])
    assert len(dataset) == 6
    assert dataset.quarantined[0][0] == "a.tar"
    with pytest.raises(DataError, match=r"1 of 2 files are damaged, more than max_bad_fraction=0: a\.tar"):
        webdataset([path, tmp_path / "b.tar"], max_bad_fraction=0)


@given(st.binary(max_size=1500), st.integers(8, 3000))  # a compressed one is told by its first bytes
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_whatever_make_the_reader_crash(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    path = tmp_path_factory.mktemp("noise") / "a.tar"
    content = write_tar(path, pairs_of(2)).read_bytes()
    path.write_bytes(content[:at] + noise + content[at + len(noise) :])
    found = scan(path)
    assert all(offset >= 0 and offset + size <= path.stat().st_size for _, _, offset, size in found.members)


def test_what_is_no_tar_or_a_compressed_one_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"hello" * 1000)
    with pytest.raises(DataError, match=r"no pairs in 1 tars; .*a\.tar: damaged"):
        webdataset(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(gzip.compress(bytes(4096)))
    with pytest.raises(DataError, match=r"compressed tar.*uncompress it"):
        webdataset(tmp_path / "a.tar")
    with pytest.raises(DataError, match="no such file"):
        webdataset(tmp_path / "none.tar")


def test_disguised_and_damaged_pictures_are_left_out_with_the_reason(tmp_path: Path) -> None:
    members = pairs_of(5) | {
        "0001.png": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "0002.png": png(2)[:50],
        "0003.png": b"",
    }
    dataset = webdataset(write_tar(tmp_path / "a.tar", members), max_bad_fraction=1)
    assert dataset.ids == ["a/0000", "a/0004"]
    assert "not an image of a known format" in dict(dataset.quarantined)["a/0001"]


def test_a_shard_that_shrinks_after_it_was_opened_is_an_error_and_no_other_picture(tmp_path: Path) -> None:
    dataset = webdataset(write_tar(tmp_path / "a.tar", pairs_of(3)), cache="none")
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(DataError, match="ends before byte"):
        dataset[2]


@pytest.mark.parametrize("path", ["pipe:cat a.tar", "https://example.org/a.tar", "s3:/bucket/{0..9}.tar"])
def test_commands_and_addresses_are_refused(path: str) -> None:
    with pytest.raises(RecipeError, match="not opened; download"):
        shards_of(path)


def test_patterns_name_shards_as_a_shell_does(tmp_path: Path) -> None:
    assert expanded("{a,b}/{0..2}.tar") == [f"{x}/{n}.tar" for x in "ab" for n in range(3)]
    assert expanded("{00098..00101}.tar") == ["00098.tar", "00099.tar", "00100.tar", "00101.tar"]
    assert expanded("plain{}.tar") == ["plain{}.tar"]
    for wrong in ("{0..99999999999}.tar", "{0..9999}{0..9999}.tar", "{5..1}.tar"):
        with pytest.raises(RecipeError, match=r"million|1,000,000"):
            expanded(wrong)
    for name in ("00000", "00001", "deep/00002"):
        write_tar(tmp_path / f"{name}.tar", {})
    names = [path.relative_to(tmp_path).as_posix() for path in shards_of(tmp_path)]
    assert names == ["00000.tar", "00001.tar", "deep/00002.tar"]
    assert len(shards_of(f"{tmp_path}/*.tar")) == 2
    assert len(shards_of(f"{tmp_path}/{{00000..00001}}.tar")) == 2
    with pytest.raises(DataError, match=r"no \.tar file there"):
        shards_of(f"{tmp_path}/x*.tar")
