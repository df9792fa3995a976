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
from overtone.objectives.many_positives import cosines, many_positives
from overtone.strategies.cacr import attraction, repulsion
from overtone.strategies.circuitgcl import scattering
from overtone.strategies.sepclr import alignment, uniformity

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
    "ins": _ins,
    "sepclr": _sepclr,
}


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "overtone"
    for name, loss in PICTURES.items():
        draw(name, loss)


if __name__ == "__main__":
    main()
