from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import overtone

HOME = Path(overtone.__file__).parent

# A module imports from its own layer and those above it here, never from one below.
LAYERS: list[set[str]] = [
    {
        "errors", "imports", "rng", "distributed", "contracts", "artifacts", "interrupts", "loading",
        "progress", "loggers", "links", "npy", "failures", "roster", "text",
        "machine",
    },
    {
        "objectives", "views", "datasets", "cell_files", "partition", "kmeans", "clustering", "sampling",
        "lloyd", "heads", "ledger", "optim", "checkpoints", "granularity", "identities", "skipping", "stages",
        "shares",
    },
    {"encoders", "embedding", "discrimination", "evidence"},
    {"methods", "strategies", "gradients", "training"},
    {
        "evaluation", "integration", "monitoring", "drift", "run_folder", "levers", "stopping", "multistage",
        "calibrating",
    },
    {"report", "recipe"},
    {
        "study", "integrating", "results", "image_text", "readers", "finding_pairs", "diagnosing", "fitting",
        "auto", "demo", "exploring", "reporting", "comparing", "planning",
    },
    {"cli"},
    {"__main__"},
]  # fmt: skip

# The only places that may touch the streams that the whole process shares.
DRAWS_GLOBALLY = {"rng": {"torch.default_generator", "np.random", "random"}}


@cache
def _modules() -> dict[str, ast.Module]:
    """Dotted name below `overtone` -> its code; packages by their own name, the top one left out."""
    found = {}
    for path in sorted(HOME.rglob("*.py")):
        parts = path.relative_to(HOME).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def _imported(code: ast.AST) -> Iterator[str]:
    """Every module, or name in one, that a module imports, wherever in it."""
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(name: str) -> set[str]:
    """The modules of the library that a module imports."""
    found = set()
    for imported in _imported(_modules()[name]):
        package, _, rest = imported.partition(".")
        if package == "overtone":
            while rest and rest not in _modules():
                rest = rest.rpartition(".")[0]
            if rest:
                found.add(rest)
    return found


def _layer(name: str) -> int:
    top = name.partition(".")[0]
    return next(number for number, layer in enumerate(LAYERS) if top in layer)


def test_every_module_has_exactly_one_layer() -> None:
    tops = {name.partition(".")[0] for name in _modules()}
    assert {top: sum(top in layer for layer in LAYERS) for top in tops} == dict.fromkeys(tops, 1)


def test_imports_point_one_way() -> None:
    wrong = [
        f"{name} imports {other}"
        for name in _modules()
        for other in _own(name)
        if _layer(other) > _layer(name)
    ]
    assert wrong == []


def test_packages_and_modules_import_each_other_in_no_circle() -> None:
    TopologicalSorter({name: _own(name) - {name} for name in _modules()}).prepare()
    tops: dict[str, set[str]] = {}
    for name in _modules():
        top = name.partition(".")[0]
        tops.setdefault(top, set()).update(other.partition(".")[0] for other in _own(name))
    TopologicalSorter({top: others - {top} for top, others in tops.items()}).prepare()


def test_the_test_sees_imports_inside_functions_and_of_names() -> None:
    code = ast.parse("def f():\n    from overtone.study import Study\nimport torch.distributed as d")
    assert list(_imported(code)) == ["torch.distributed", "overtone.study.Study"]
    assert {"artifacts", "levers", "sampling"} <= _own("multistage")


def test_importing_the_library_or_its_command_imports_no_torch() -> None:
    code = "import sys, overtone, overtone.cli; print('torch' in sys.modules, 'numpy' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]


def test_only_one_module_may_know_of_other_processes_of_a_training() -> None:
    users = {
        name for name, code in _modules().items() if any("torch.distributed" in i for i in _imported(code))
    }
    assert users <= {"distributed"}


def _draws(code: ast.AST) -> set[str]:
    """Which of the shared streams a module touches."""
    found = {i for i in _imported(code) if i == "random" or i.startswith("random.")}
    for node in ast.walk(code):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        found |= {
            s
            for s in ("torch.manual_seed", "torch.seed", "torch.default_generator", "np.random")
            if text == s
        }
        # Drawing into a tensor or from a module takes no address either.
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "torch.rand",
            "torch.randn",
            "torch.randperm",
        ):
            found |= set() if any(word.arg == "generator" for word in node.keywords) else {"torch.rand"}
    return {"random" if one.startswith("random") else one for one in found}


def test_every_draw_has_an_address() -> None:
    assert {name: found for name, code in _modules().items() if (found := _draws(code))} == DRAWS_GLOBALLY
