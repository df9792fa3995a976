"""Charts as SVG inside a page: curves, bars and a map of samples, each told in words and marked by shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from overtone.report.page import SERIES, render

WIDTH, HEIGHT = 520, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 30
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4")
_MARKS = (
    "h0",
    "m-3.5-2.5h7l-3.5 6z",
    "m-2.6-2.6h5.2v5.2h-5.2z",
    "m0-4l3.4 4-3.4 4-3.4-4z",
    "m-3.5 2.5h7l-3.5-6z",
    "m-1-3.5h2v2.5h2.5v2h-2.5v2.5h-2v-2.5h-2.5v-2h2.5z",
    "m-1.3-4h2.6v8h-2.6z",
    "m-4-1.3h8v2.6h-8z",
    "m-2.5-3.5v7l6-3.5z",
    "m2.5-3.5v7l-6-3.5z",
)
MOST_POINTS = 300  # of a curve, so that a long training draws no larger page


class Curve(NamedTuple):
    """A line of a chart: name, points (x, y), colour, and a dash of its own or that of the colour."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    dash: int | None = None


class Group(NamedTuple):
    """Samples of a map that share a name; `style` None is for all others, drawn small and grey."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int | None = 0


class _Tick(NamedTuple):
    at: float
    text: str


def line_chart(title: str, curves: Sequence[Curve], *, x: str = "step", y: str = "") -> Markup:
    """Curves over a common axis; points that are not finite are left out.

    Args:
        title: Below the chart.
        curves: Drawn as they are, or thinned out evenly to `MOST_POINTS` points.
        x: What is across.
        y: What is up.

    >>> "<svg" in line_chart("Loss", [Curve("stage 0", [(0, 4.0), (10, 2.0)])])
    True
    """
    finite = [curve._replace(points=_thinned(curve.points)) for curve in curves]
    finite = [curve for curve in finite if curve.points]
    if not finite:
        return Markup("")
    every = [point for curve in finite for point in curve.points]
    across = _Axis([point[0] for point in every], WIDTH, _LEFT, _RIGHT)
    up = _Axis([point[1] for point in every], HEIGHT, 0, 0)
    drawn = [
        {
            "name": curve.name,
            "path": _path(f"{across(a):.1f} {_down(up.share(b)):.1f}" for a, b in curve.points),
            "style": curve.style % SERIES,
            "dash": _DASHES[(curve.style if curve.dash is None else curve.dash) % len(_DASHES)],
            "last": _number(curve.points[-1][1]),
        }
        for curve in finite
    ]
    said = "; ".join(
        f"{c.name} from {_number(c.points[0][1])} to {_number(c.points[-1][1])}" for c in finite[:8]
    )
    return render(
        "lines.html",
        title=title,
        said=said,
        curves=drawn,
        xs=[_Tick(across(value), _number(value)) for value in across.ticks],
        **_frame(up, x, y),
    )


def _frame(up: _Axis, x: str, y: str) -> dict[str, Any]:
    """What every chart has: its box, the names of its axes and the upright one's ticks."""
    return {
        "ys": [_Tick(_down(up.share(value)), _number(value)) for value in up.ticks],
        "x": x,
        "y": y,
        "width": WIDTH,
        "height": HEIGHT,
        "box": (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM),
    }


def bar_chart(title: str, bars: Sequence[tuple[str, float]], *, x: str = "", y: str = "") -> Markup:
    """Bars side by side, such as a histogram.

    >>> bar_chart("Cells", [("1-2", 3), ("3-4", 9)]).count("<rect")
    2
    """
    if not bars:
        return Markup("")
    up = _Axis([0.0, *(value for _, value in bars)], HEIGHT, 0, 0)
    step = (WIDTH - _LEFT - _RIGHT) / len(bars)
    drawn = [
        {
            "x": round(_LEFT + number * step + 1, 1),
            "y": round(_down(up.share(value)), 1),
            "width": round(step - 2, 1),
            "height": round(_down(up.share(0)) - _down(up.share(value)), 1),
            "name": name,
            "value": _number(value),
        }
        for number, (name, value) in enumerate(bars)
    ]
    every = max(1, math.ceil(len(bars) / 8))
    return render(
        "bars.html",
        title=title,
        bars=drawn,
        xs=[_Tick(_LEFT + (n + 0.5) * step, bars[n][0]) for n in range(0, len(bars), every)],
        **_frame(up, x, y),
    )


def scatter(title: str, groups: Sequence[Group], *, said: str = "") -> Markup:
    """A map of samples: a colour and a mark for each group, and its name and size below.

    Args:
        title: Below the map.
        groups: Coordinates from 0 to 1, the first to the right, the second down.
        said: What the map shows, for those who do not see it.

    >>> scatter("Map", [Group("star", [(0.5, 0.5)])]).count("<path")
    2
    """
    side = 600
    drawn = [
        {
            "name": group.name,
            "count": len(group.points),
            "path": Markup("").join(
                Markup(f"M{round(8 + a * (side - 16))} {round(8 + b * (side - 16))}{_mark(group.style)}")
                for a, b in group.points
            ),
            "mark": f"M16 9{_mark(group.style)}",
            "style": None if group.style is None else group.style % SERIES,
            "dot": group.style is None or _mark(group.style) == _MARKS[0],
        }
        for group in groups
        if group.points
    ]
    return render("map.html", title=title, groups=drawn, said=said, side=side)


def picture_map(title: str, stamps: Sequence[tuple[float, float, Markup]]) -> Markup:
    """A map of small pictures: (to the right, down) from 0 to 1, and a `data_uri`.

    >>> picture_map("Map", [(0.5, 0.5, Markup("data:,"))]).count("<image")
    1
    """
    placed = [(round(8 + a * 544), round(8 + b * 544), uri) for a, b, uri in stamps]
    return render("stamps.html", title=title, stamps=placed, side=600, size=40)


class _Axis:
    """Where values lie between the ends of an axis, which begin and end at round numbers."""

    def __init__(self, values: Sequence[float], length: float, before: float, after: float) -> None:
        low, high = min(values), max(values)
        step = _round_step((high - low) or abs(high) or 1.0)
        self.low, self.high = math.floor(low / step) * step, math.ceil(high / step) * step
        if self.low == self.high:
            self.high = self.low + step
        count = round((self.high - self.low) / step)
        self.ticks = [self.low + number * step for number in range(count + 1)]
        self.length, self.before, self.after = length, before, after

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def __call__(self, value: float) -> float:
        return round(self.before + self.share(value) * (self.length - self.before - self.after), 1)


def _down(share: float) -> float:
    return round(HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP), 1)


def _round_step(span: float) -> float:
    """A round number of which about four make a span."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span / 4 * 0.999)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    finite = [point for point in points if all(map(math.isfinite, point))]
    if len(finite) <= MOST_POINTS:
        return finite
    last = len(finite) - 1
    return [finite[round(number * last / (MOST_POINTS - 1))] for number in range(MOST_POINTS)]


def _path(points: Iterable[str]) -> Markup:
    return Markup("M" + " ".join(points))  # numbers alone


def _mark(style: int | None) -> str:
    return _MARKS[0] if style is None else _MARKS[style % len(_MARKS)]


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
