"""Where the records of a training go: JSON lines always, TensorBoard and Weights & Biases when asked."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from overtone import artifacts
from overtone.errors import RecipeError

logger = logging.getLogger(__name__)

Record = dict[str, Any]


def available() -> list[str]:
    """The loggers that are installed and, for Weights & Biases, switched on by its own variables."""
    found = ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
    switched_on = "WANDB_API_KEY" in os.environ or "WANDB_MODE" in os.environ
    return found + (["wandb"] if importlib.util.find_spec("wandb") and switched_on else [])


class Loggers:
    """Sends each record to `metrics.jsonl` in a folder and to the loggers named.

    The file is only ever appended to: after an interruption some steps stand in it twice, alike.

    >>> import tempfile
    >>> home = Path(tempfile.mkdtemp())
    >>> with Loggers(home, []) as loggers:
    ...     loggers({"step": 1, "loss": 2.5})
    >>> (home / "metrics.jsonl").read_text()
    '{"step": 1, "loss": 2.5}\\n'
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names
        self._stack = ExitStack()
        self._sinks: list[Callable[[Record], None]] = []

    def __enter__(self) -> Loggers:
        self.folder.mkdir(parents=True, exist_ok=True)
        openers = {"tensorboard": self._tensorboard, "wandb": self._wandb}
        self._sinks = [self._json_lines(), *(openers[name]() for name in self.names)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, record: Record) -> None:
        """Writes a record; it holds `step` and numbers by name."""
        for sink in self._sinks:
            sink(record)

    def _json_lines(self) -> Callable[[Record], None]:
        lines = artifacts.Lines(self.folder / "metrics.jsonl")
        self._stack.callback(lines.close)
        return lines.add

    def _tensorboard(self) -> Callable[[Record], None]:
        _require("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(self.folder / "tensorboard"))
        self._stack.callback(writer.close)

        def write(record: Record) -> None:
            for name, value in _numbers(record).items():
                writer.add_scalar(name, value, record["step"])

        return write

    def _wandb(self) -> Callable[[Record], None]:
        _require("wandb")
        import wandb

        run = wandb.init(project="overtone", name="/".join(self.folder.parts[-2:]), dir=str(self.folder))
        self._stack.callback(run.finish)

        def write(record: Record) -> None:
            if record["step"] >= 0:  # it takes no others, such as those of a warm start
                run.log(_numbers(record), step=record["step"])

        return write


def _numbers(record: Record) -> Record:
    return {
        name: value for name, value in record.items() if isinstance(value, (int, float)) and name != "step"
    }


def _require(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise RecipeError(
            f'loggers: {name!r} is not installed; pip install "overtone[{name}]", or leave it out.'
        )
