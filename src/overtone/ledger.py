"""What each step of a training was made of, so that anyone can check that an interruption changed nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor

from overtone import artifacts, distributed


class Ledger:
    """What each step was made of and what came of it: `ledger-RANK.jsonl`, a line a step.

    {"stage", "step", "samples": a digest of the sample indices in their order, "loss": its bits}. After an
    interruption some steps stand in it twice, and alike: that is what exact means, and anyone can check it.

    >>> import tempfile
    >>> import torch
    >>> home = Path(tempfile.mkdtemp())
    >>> with Ledger(home, stage=1) as ledger:
    ...     ledger(7, torch.tensor([4, 2]), 0.5)
    >>> print((home / "ledger-0.jsonl").read_text())
    {"stage": 1, "step": 7, "samples": "d4792ed91c5c6800", "loss": "0x1.0000000000000p-1"}
    <BLANKLINE>
    """

    def __init__(self, folder: Path, stage: int) -> None:
        self.path, self.stage = folder / f"ledger-{distributed.rank()}.jsonl", stage

    def __enter__(self) -> Ledger:
        artifacts.make_folder(self.path.parent)
        self._lines = artifacts.Lines(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def __call__(self, step: int, index: Tensor, loss: float) -> None:
        """Adds the line of a step."""
        samples = hashlib.sha1(index.cpu().numpy().astype("<i8").tobytes(), usedforsecurity=False)
        self._lines.add(
            {"stage": self.stage, "step": step, "samples": samples.hexdigest()[:16], "loss": loss.hex()}
        )
