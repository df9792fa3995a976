from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overtone import artifacts
from overtone.errors import DiskError, RunError


def _written(folder: Path, text: str = "hello") -> Path:
    with artifacts.writing(folder, {"data": "1234"}) as beside:
        (beside / "inner").mkdir()
        (beside / "note.txt").write_text(text)
        (beside / "inner" / "more.txt").write_text("more")
    return folder


def _fail(reason: object) -> None:
    raise KeyError(reason)


def test_a_folder_appears_only_when_its_block_has_ended(tmp_path: Path) -> None:
    with artifacts.writing(tmp_path / "a") as beside:
        (beside / "note.txt").write_text("hello")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "note.txt").read_text() == "hello"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_exception_in_the_block_leaves_nothing_new_and_what_was_there_before(tmp_path: Path) -> None:
    for before in (False, True):
        if before:
            _written(tmp_path / "a")
        with pytest.raises(KeyError), artifacts.writing(tmp_path / "a") as beside:
            _fail((beside / "note.txt").write_text("half"))
        assert [p.name for p in tmp_path.iterdir()] == (["a"] if before else [])
    assert (tmp_path / "a" / "note.txt").read_text() == "hello"


def test_old_content_is_replaced_whole(tmp_path: Path) -> None:
    _written(tmp_path / "a")
    with artifacts.writing(tmp_path / "a") as beside:
        (beside / "other.txt").write_text("new")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["manifest.json", "other.txt"]
    assert list(artifacts.verify(tmp_path / "a")["files"]) == ["other.txt"]


def test_what_a_process_killed_between_two_renames_left_is_used_then_removed(
    tmp_path: Path,
) -> None:
    _written(tmp_path / "a").rename(tmp_path / ".a.old")
    assert artifacts.is_complete(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / ".a.old")  # killed after both, before the old one was removed
    shutil.rmtree(tmp_path / "a")
    _written(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_every_file_and_folder_is_synced_before_the_rename_and_the_parent_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        happened.append("rename")
        return rename(path, target)

    monkeypatch.setattr(artifacts, "_sync", lambda path: happened.append(path.name))
    monkeypatch.setattr(Path, "rename", renamed)
    _written(tmp_path / "a")
    assert set(happened[:3]) == {"inner", "note.txt", "more.txt"}
    assert happened[3:] == [".manifest.json.writing", ".a.writing", "rename", tmp_path.name]


def test_a_process_killed_while_writing_leaves_no_folder_and_the_next_one_succeeds(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; from overtone import artifacts\n"
        "with artifacts.writing(pathlib.Path(sys.argv[1])) as beside:\n"
        "    (beside / 'half.txt').write_text('half'); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    _written(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_flipped_bit_in_any_file_is_named(tmp_path: Path) -> None:
    for name in ("note.txt", "inner/more.txt"):
        path = _written(tmp_path / "a") / name
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.write_bytes(content)
        with pytest.raises(RunError, match=f"{name}: damaged"):
            artifacts.verify(tmp_path / "a")


def test_a_flipped_bit_anywhere_in_the_manifest_is_refused_or_shows_as_another_input(tmp_path: Path) -> None:
    manifest = _written(tmp_path / "a") / "manifest.json"
    content, inputs = manifest.read_bytes(), {"data": "1234"}
    for position in range(len(content)):
        manifest.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(RunError):
            artifacts.require_inputs(tmp_path / "a", artifacts.verify(tmp_path / "a"), inputs)


@pytest.mark.parametrize("name", ["note.txt", "inner/more.txt"])
def test_a_truncated_and_a_missing_file_are_named(tmp_path: Path, name: str) -> None:
    path = _written(tmp_path / "a") / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=f"{name}: damaged"):
        artifacts.verify(tmp_path / "a")
    path.unlink()
    with pytest.raises(RunError, match=f"{name}: missing"):
        artifacts.verify(tmp_path / "a")


def test_a_folder_without_manifest_is_not_complete_and_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert not artifacts.is_complete(tmp_path / "a")
    with pytest.raises(RunError, match=str(tmp_path / "a")):
        artifacts.verify(tmp_path / "a")


def test_an_artifact_made_from_something_else_is_refused_and_both_are_named(tmp_path: Path) -> None:
    manifest = artifacts.verify(_written(tmp_path / "a"))
    artifacts.require_inputs(tmp_path / "a", manifest, {"data": "1234"})
    with pytest.raises(RunError, match="another data: 1234, now 5678"):
        artifacts.require_inputs(tmp_path / "a", manifest, {"data": "5678"})


_FILL = """
import sys, numpy as np, torch
from pathlib import Path
from overtone import artifacts, checkpoints
from overtone.errors import DiskError
home = Path(sys.argv[1])
with artifacts.writing(home / "old") as beside:
    (beside / "note.txt").write_text("hello")
net = torch.nn.Linear(1000, 1000)
sgd = torch.optim.SGD(net.parameters())
def text(place): (place / "a").write_bytes(bytes(10**7))
def array(place): np.save(place / "a.npy", np.zeros(10**6))
def made(write):
    with artifacts.writing(home / "new") as beside:
        write(beside)
for attempt in (lambda: made(text), lambda: made(array), lambda: checkpoints.save(home, 1, net, sgd, {})):
    try:
        attempt()
    except DiskError as error:
        print("DiskError", "MB are free" in str(error))
artifacts.verify(home / "old")
print([p.name for p in home.iterdir()])
"""


def test_a_full_disk_is_a_disk_error_that_leaves_nothing_behind(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a small disk")
    mount = f'mount -t tmpfs -o size=1m none "{tmp_path}" && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", sys.executable, "-c", _FILL, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount" in ended.stderr or "unshare" in ended.stderr:
        pytest.skip(f"cannot mount a small disk here: {ended.stderr.strip()}")
    assert ended.stdout.splitlines() == ["DiskError True"] * 3 + ["['old']"], ended.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_a_disk_can_refuse_is_a_disk_error_with_the_place_and_the_reason(
    tmp_path: Path, number: int
) -> None:
    with pytest.raises(DiskError, match=os.strerror(number)) as caught, artifacts.disk_errors(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "x") in str(caught.value)
    assert caught.value.exit_code == 5


def test_other_errors_of_the_system_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), artifacts.disk_errors(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    value: Any = {"name": "Ünïcode", "numbers": [1, 2.5, None]}
    artifacts.write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == artifacts.read_json(path) == value
    with pytest.raises(TypeError):
        artifacts.write_json(path, {"a": object()})

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(artifacts, "_sync", full)
    with pytest.raises(DiskError):
        artifacts.write_json(path, {"a": 1})
    assert artifacts.read_json(path) == value


_LIMITED = """
import pathlib, resource, signal, sys
from overtone import artifacts
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
lines = artifacts.Lines(pathlib.Path(sys.argv[1]))
for step in range(4):
    lines.add({"name": 12 * "x", "step": step})
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
lines.add({"step": 4})
"""


def test_no_half_line_stays_in_a_log_whose_disk_was_full_for_a_while(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "log")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [json.loads(line)["step"] for line in (tmp_path / "log").read_text().splitlines()] == [0, 4]
    assert "lines are lost" in ended.stderr


def test_json_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a\.json: missing"):
        artifacts.read_json(tmp_path / "a.json")
    for content in (b'{"a": 1', b"\xff\xfe", b""):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(RunError, match=r"a\.json: not readable"):
            artifacts.read_json(tmp_path / "a.json")


_HOLD = """
import os, pathlib, sys, time
from multiprocessing import get_context
from overtone import artifacts
def work():
    print(os.getppid(), os.getpid(), flush=True)
    time.sleep(30)
with artifacts.locked(pathlib.Path(sys.argv[1])):
    get_context("fork").Process(target=work).start()
    time.sleep(30)
"""


def test_a_second_process_on_a_folder_is_told_the_pid_of_the_first_until_that_is_killed(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid, worker = map(int, holder.stdout.readline().split())
        try:
            with pytest.raises(RunError, match=f"process {pid}"), artifacts.locked(tmp_path):
                pass
            holder.kill()
            holder.wait()
            with artifacts.locked(tmp_path):  # though the worker that it left still lives
                assert (tmp_path / "lock").read_text() == str(os.getpid())
        finally:
            holder.kill()
            os.kill(worker, signal.SIGKILL)


def test_a_manifest_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    with artifacts.writing(tmp_path / "made") as beside:
        (beside / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("a")
    manifest = tmp_path / "made" / artifacts.MANIFEST
    manifest.write_text(manifest.read_text().replace('"a.txt"', '"../b.txt"'))
    with pytest.raises(RunError, match=r"names '\.\./b\.txt', outside its folder"):
        artifacts.verify(tmp_path / "made")


def test_json_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(RunError, match="not readable as JSON"):
        artifacts.read_json(tmp_path / "deep.json")
