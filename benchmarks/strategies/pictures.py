"""Draws what attracts and what repels: the force of each strategy's loss on points around an anchor.

    python benchmarks/strategies/pictures.py

An arrow is minus the gradient of the loss by the place of a point on the unit circle (or in the plane), so
the pictures cannot say anything else than the code. Writes `docs/strategies/images/NAME.svg`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import Circle

from overtone.contracts import Ids
from overtone.objectives.many_positives import allowed, cosines, many_positives
from overtone.objectives.mixing import hardest, mixed, mixed_with_rows
from overtone.rng import generator
from overtone.strategies.cacr import attraction, repulsion
from overtone.strategies.circuitgcl import scattering
from overtone.strategies.convirt import both_ways
from overtone.strategies.dnabert_s import mixed_nce
from overtone.strategies.mochi import with_synthetic
from overtone.strategies.radzero import attended
from overtone.strategies.sepclr import alignment, uniformity
from overtone.strategies.timedrl import agreement

IMAGES = Path("docs/strategies/images")
COLOURS = {"anchor": "#222222", "positive": "#2a7a3b", "negative": "#b03030", "other cell": "#9a9a9a"}
# Degrees on the circle: the anchor, its positives, its negatives, two points of another cell.
ANGLES = (90.0, 70.0, 130.0, 40.0, 160.0, 200.0, 300.0, 350.0, 250.0)
KINDS = ("anchor", "positive", "positive", *("negative",) * 4, *("other cell",) * 2)
CELL = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1])


def circle() -> Tensor:
    """(9, 2) the points, of unit length."""
    angles = torch.tensor(ANGLES).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def draw(name: str, loss: Callable[[Tensor], Tensor], points: Tensor | None = None) -> None:
    """Draws the forces of `loss(points)` on the points, kinds and cells as above."""
    points = (circle() if points is None else points).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(points), points)
    place, force = points.detach(), -gradient
    length = force.norm(dim=1).amax().clamp_min(1e-12)
    figure, axes = plt.subplots(figsize=(3.4, 3.4))
    axes.add_patch(Circle((0, 0), 1, fill=False, color="#cccccc"))
    for kind, colour in COLOURS.items():
        here = [row for row, other in enumerate(KINDS) if other == kind]
        axes.scatter(place[here, 0], place[here, 1], color=colour, label=kind, zorder=3, s=30)
    arrows = 0.6 * force / length
    axes.quiver(
        *place.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.009, color="#444444", zorder=2
    )
    axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal")
    axes.axis("off")
    axes.legend(loc="lower left", fontsize=7, frameon=False)
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def _cacr(points: Tensor) -> Tensor:
    """The anchor with its two positives as three views, its negatives as single ones."""
    pull = attraction(points[:3, None], 1.0)
    rows, columns = Ids(CELL[:1], torch.zeros(1)), Ids(CELL[3:], torch.arange(1, 7))
    return pull - repulsion(points[:1], points[3:], rows, columns, 2.0)


def _mochi(points: Tensor) -> Tensor:
    """MoCHi's keys as if they learned too: what is mixed passes its force on to what it is made of."""
    anchor, keys, own = points[:1], points[1:], torch.tensor([0])
    positives = torch.tensor([[True, True, *[False] * 6]])
    negatives = allowed(Ids(CELL[:1], torch.zeros(1)), Ids(CELL[1:], torch.arange(1, 9)), positives)
    similarities, draw = anchor @ keys.T, generator(0, "mochi")
    hard, count = hardest(similarities, negatives, 2)
    made = torch.cat(
        [mixed(keys, hard, count, 64, draw), mixed_with_rows(anchor, keys, hard, count, 32, draw)], 1
    )
    return with_synthetic(similarities, (anchor[:, None] * made).sum(2), own, negatives, 0.5)


def _convirt(points: Tensor) -> Tensor:
    """The anchor is a picture, its positives two sentences of its report, drawn at different steps."""
    return torch.stack([_named(points[:1], points[[own]], points[3:], 0.3) for own in (1, 2)]).mean()


def _named(rows: Tensor, own: Tensor, others: Tensor, temperature: float) -> Tensor:
    """The loss of both ways of a pair among others; those of another cell do not repel."""
    first = torch.tensor([[True] + [False] * len(others)])
    to_texts = cosines(rows, torch.cat([own, others])) / temperature
    to_pictures = cosines(own, torch.cat([rows, others])) / temperature
    negatives = torch.cat([torch.zeros(1), CELL[3:] == 0]).bool()[None]
    return both_ways(to_texts, to_pictures, first, negatives, 0.75)


def _radzero(points: Tensor) -> Tensor:
    """The anchor is a sentence, the positives are patches of its picture, the rest pictures of one patch."""
    seen = attended(points[:1], points[1:3][None], 0.05)
    logits = torch.cat([seen, cosines(points[:1], points[3:])], dim=1) / 0.3
    own = torch.tensor([[True] + [False] * 6])
    negatives = torch.cat([torch.zeros(1), CELL[3:] == 0]).bool()[None]
    return many_positives(logits, own, negatives)


def _tip(points: Tensor) -> Tensor:
    """The anchor is a picture, its positives its table in two corruptions: the first of the three losses."""
    both = [_named(points[:1], points[[own]], points[3:], 0.3) for own in (1, 2)]
    swapped = [_named(points[[own]], points[:1], points[3:], 0.3) for own in (1, 2)]
    return torch.stack(both + swapped).mean()


def _dnabert_s(points: Tensor) -> Tensor:
    """The anchor, seven parts of its first positive and three of its nearest negative, against the others."""
    columns = points[[1, *range(3, 9)]]
    logits, negatives = points[:1] @ columns.T / 0.3, (CELL[[1, *range(3, 9)]] == 0)[None].clone()
    negatives[0, 0] = False
    own, partner = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long)
    return mixed_nce(logits, own, partner, torch.tensor([0.7]), negatives)


def _timedrl(points: Tensor) -> Tensor:
    """The anchor and its first positive as the two passes, with the identity as predictor."""
    passes = points[:1], points[1:2]
    return agreement(passes, passes)


def _circuitgcl(points: Tensor) -> Tensor:
    """All points, each pushed from the mean of its cell."""
    return scattering(points, points, CELL, CELL)


def _ins(points: Tensor) -> Tensor:
    """The anchor after the warm-up: what has its pseudo-label attracts."""
    positives = torch.tensor([[False, True, True] + [False] * 6])
    negatives = (CELL == 0)[None] & ~positives
    negatives[0, 0] = False
    logits = cosines(points[:1], points) / 0.5
    return many_positives(logits, positives, negatives, denominator="all")


def _sepclr(points: Tensor) -> Tensor:
    """The salient half: the dark points are targets, the grey ones background, which is pulled to nothing."""
    target = CELL == 0
    views = [points, points.detach()[[1, 0, *range(2, 9)]]]  # the second view of the anchor is a positive
    pairs = ~torch.eye(9, dtype=torch.bool)
    left = alignment(points, torch.zeros_like(points), ~target)
    return alignment(views[0], views[1], target) + 2 * uniformity(points * target[:, None], pairs) + left


PICTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "cacr": _cacr,
    "circuitgcl": _circuitgcl,
    "convirt": _convirt,
    "dnabert_s": _dnabert_s,
    "ins": _ins,
    "mochi": _mochi,
    "radzero": _radzero,
    "sepclr": _sepclr,
    "timedrl": _timedrl,
    "tip": _tip,
}


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "overtone"
    for name, loss in PICTURES.items():
        draw(name, loss)


if __name__ == "__main__":
    main()
