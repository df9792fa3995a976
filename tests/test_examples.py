from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from overtone.sampling import CellBatchSampler, Ints

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS: dict[str, tuple[str, ...]] = {
    "plain_pytorch": (),
    "open_clip_loop": (),
    "lightning_trainer": ("lightning",),
    "sentence_transformers_trainer": ("sentence_transformers", "accelerate"),
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_a_loop_of_other_people_runs_epoch_after_epoch_of_the_sampler(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in NEEDS[name]:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    drawn: list[tuple[int, int]] = []
    lengths: set[int] = set()
    batch = CellBatchSampler.batch

    def noted(self: CellBatchSampler, epoch: int, position: int) -> Ints:
        drawn.append((epoch, position))
        lengths.add(len(self))
        return batch(self, epoch, position)

    monkeypatch.setattr(CellBatchSampler, "batch", noted)
    epochs = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")["EPOCHS"]
    (length,) = lengths
    assert epochs > 1
    assert drawn == [(epoch, position) for epoch in range(epochs) for position in range(length)]
