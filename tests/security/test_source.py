"""What the code of the library itself may do: no pickle, no shell, no network unasked."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import overtone

HOME = Path(overtone.__file__).parent
UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "skops"}
REACHES_OUT = {"subprocess", "socket", "urllib", "http", "requests", "ftplib", "webbrowser", "tarfile"}
NETWORKLESS = """
import importlib, pkgutil, socket
def refuse(*_, **__): raise AssertionError("the network was asked")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import overtone
for found in pkgutil.walk_packages(overtone.__path__, "overtone."):
    importlib.import_module(found.name)
"""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in sorted(HOME.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.name, ast.unparse(node.func), node


def imports() -> Iterator[tuple[str, str]]:
    for path in sorted(HOME.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            yield from ((path.name, name.partition(".")[0]) for name in names)


def test_nothing_imports_what_unpickles_or_reaches_out() -> None:
    assert [found for found in imports() if found[1] in UNPICKLES | REACHES_OUT] == []


def test_every_reader_that_could_unpickle_is_told_not_to() -> None:
    told = {"np.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}
    found = 0
    for file, name, call in calls():
        if name in told:
            keyword, value = told[name]
            given = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg == keyword}
            assert given == {keyword: value}, (file, call.lineno)
            found += 1
    assert found >= 2


def test_yaml_is_read_by_safe_loaders_alone_and_no_shell_is_started() -> None:
    names = {name for _, name, _ in calls()}
    assert not names & {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "exec"}


def test_importing_every_module_asks_for_no_network() -> None:
    subprocess.run([sys.executable, "-c", NETWORKLESS], check=True, timeout=120)
