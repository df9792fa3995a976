"""Numbers of which it is known how well they are known, and the plan that is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A number of which it is known how well it is known.

    >>> Figure.exact(3) + Figure.within(0, 2), (Figure.exact(3) + Figure.estimate(2)).how
    (Figure(least=3, most=5, estimated=False), 'estimate')
    """

    least: float
    most: float
    estimated: bool = False

    @classmethod
    def exact(cls, value: float) -> Figure:
        """What the run will have, to the last one."""
        return cls(value, value)

    @classmethod
    def within(cls, least: float, most: float) -> Figure:
        """What the run itself decides, between two bounds."""
        return cls(least, most)

    @classmethod
    def estimate(cls, value: float) -> Figure:
        """What it will be about."""
        return cls(value, value, estimated=True)

    @classmethod
    def total(cls, figures: Iterable[Figure]) -> Figure:
        """All together."""
        return sum(figures, start=cls.exact(0))

    @property
    def how(self) -> str:
        """ "exact", "range" or "estimate"."""
        return "estimate" if self.estimated else "exact" if self.least == self.most else "range"

    def perhaps(self) -> Figure:
        """It, or nothing."""
        return Figure(0, self.most, self.estimated)

    def __add__(self, other: Figure) -> Figure:
        return Figure(self.least + other.least, self.most + other.most, self.estimated or other.estimated)

    def __mul__(self, factor: float) -> Figure:
        return Figure(self.least * factor, self.most * factor, self.estimated)


Figures = Mapping[str, Figure]


@dataclass(frozen=True)
class StagePlan:
    """What one stage takes.

    Attributes:
        steps: Updates of the weights, and the steps of a warm start before them.
        samples: Seen in training, over all processes.
        read: What -> bytes, over all processes.
        written: What -> bytes; files by their name in the run folder.
        training: What -> bytes in the memory of each process while it trains.
        clustering: What -> bytes in the memory of the first process while it makes the stage's cells.
        embedding: What -> bytes in the memory of each process while it embeds with the stage.
        seconds: What -> seconds, where a throughput is known.
    """

    steps: Figure
    samples: Figure
    read: Figures
    written: Figures
    training: Figures
    clustering: Figures
    embedding: Figures
    seconds: Figures = field(default_factory=dict)

    def memory(self) -> tuple[str, Figures]:
        """The part of the stage that takes most memory of a process, and what it takes."""
        parts = {"training": self.training, "clustering": self.clustering, "embedding": self.embedding}
        name = max(parts, key=lambda part: Figure.total(parts[part].values()).most)
        return name, parts[name]


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    Attributes:
        samples: How many there are to train on.
        world_size: Processes.
        stages: In their order.
        beside: What is written before the first stage and after the last: what -> bytes.
        checkpoint: Bytes of one of the checkpoints that come and go while a stage trains.
        at_once: Most bytes on the disk at any time.
        said: What was assumed and what is left out, in sentences.
    """

    samples: int
    world_size: int
    stages: Sequence[StagePlan]
    beside: Figures
    checkpoint: int
    at_once: Figure
    said: Sequence[str]

    def totals(self) -> dict[str, Figure]:
        """Steps, samples, bytes read and written, and seconds where they are known, of the whole run."""
        stages = self.stages
        found = {
            "steps": Figure.total(stage.steps for stage in stages),
            "samples": Figure.total(stage.samples for stage in stages),
            "read": Figure.total(f for stage in stages for f in stage.read.values()),
            "written": Figure.total(
                [*(f for stage in stages for f in stage.written.values()), *self.beside.values()]
            ),
        }
        seconds = [figure for stage in stages for figure in stage.seconds.values()]
        return {**found, "seconds": Figure.total(seconds)} if seconds else found

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found: dict[str, Any] = {**_plain(self), "totals": _plain(self.totals())}
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, Figure):
        return {"least": value.least, "most": value.most, "how": value.how}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
