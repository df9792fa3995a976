"""What was found of a frozen encoder: as sentences, a frame, a figure, a page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup
from PIL.Image import Image
from rich.table import Table
from rich.text import Text

from overtone import artifacts
from overtone.errors import RecipeError
from overtone.evaluation.verdict import RULE, VERDICTS, Attribute, Verdict
from overtone.report import printable
from overtone.report.gallery import Purity
from overtone.report.page import (
    Picture,
    Section,
    Strip,
    bullets,
    data_uri,
    details,
    facts,
    page,
    paragraphs,
    render,
    strips,
    table,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_NAMED, _LISTED = 4, 8  # attributes in a headline, and in a sentence below it
_SHARED = 1.5  # times as often as any two samples agree those of a cell, to be named
_MARKS = ("circle", "square", "diamond")
_COLOURS = {"ignored": "#c2500a", "partly": "#86680a", "learned": "#00805a"}


class Told(NamedTuple):
    """Share of samples, in percent, whose other view is found among random samples, and in the own cell."""

    random: float
    own: float


class Inside(NamedTuple):
    """How two views of a sample find each other.

    Attributes:
        n_samples: That were looked at.
        cell_size: The mean size of their cells.
        told: Who looks -> what is found, always in the cells of the encoder itself, which comes first.
        agree: Attribute -> how often two samples of a cell, and any two, have the same value.
    """

    n_samples: int
    cell_size: float
    told: Mapping[str, Told]
    agree: Mapping[str, Purity]


class Geometry(NamedTuple):
    """How embeddings lie: see `overtone.evaluation.collapse`. Without views there is no alignment."""

    dim: int
    effective_rank: float
    uniformity: float
    alignment: float | None
    alarm: str | None


class Shown(NamedTuple):
    """A picture of the data and the id of its sample."""

    id: str
    image: Image


class BlindPair(NamedTuple):
    """Two pictures that are alike for the encoder, and the cosines of both readers."""

    pictures: tuple[Shown, Shown]
    cosine: float
    other_cosine: float


@dataclass(frozen=True)
class Diagnosis:
    """What a frozen encoder ignores, and how that was found.

    Attributes:
        encoder: What it is called.
        n_samples: That were looked at.
        n_total: That there are.
        attributes: What was read of each attribute, what is ignored first.
        inside: What it tells apart in its own cells; None where there are no views or no cells.
        geometry: How its embeddings lie.
        cells: Pictures of some of its cells.
        pairs: Pictures that are alike for it and different for `sees`.
        sees: Who tells these pairs apart.
        notes: What was drawn, left out or approximated.

    >>> from overtone.report.diagnosis import Diagnosis, Geometry
    >>> Diagnosis("mine", 100, 100, geometry=Geometry(8, 5.0, -2.0, None, None)).sentences[1]
    'Its 8 values spread over 5.0 directions (effective rank).'
    """

    encoder: str
    n_samples: int
    n_total: int
    geometry: Geometry
    attributes: Sequence[Attribute] = ()
    inside: Inside | None = None
    cells: Sequence[Sequence[Shown]] = ()
    pairs: Sequence[BlindPair] = ()
    sees: str = ""
    notes: Sequence[str] = field(default_factory=list)

    def having(self, verdict: Verdict) -> list[Attribute]:
        """The attributes with a verdict."""
        return [attribute for attribute in self.attributes if attribute.verdict == verdict]

    @property
    def headline(self) -> str:
        """The first sentence: what is ignored."""
        if not self.attributes:
            return "No attribute could be asked about: what follows needs none."
        if ignored := self.having("ignored"):
            return f"This encoder ignores {_named([each.name for each in ignored])}."
        asked = _named([each.name for each in self.attributes])
        return f"This encoder ignores nothing that was asked about ({asked})."

    @property
    def sentences(self) -> list[str]:
        """All of it in plain language, what matters most first, `notes` last."""
        return [*self._said(), *self.notes]

    def _said(self) -> list[str]:
        said = [self.headline, *map(_in_words, self.having("ignored")[:_NAMED])]
        begins: dict[Verdict, str] = {"partly": "Learned in part", "learned": "Learned"}
        for verdict, begin in begins.items():
            if found := self.having(verdict):
                said.append(f"{begin}: {_named(list(map(_short, found)), _LISTED)}.")
        if self.inside is not None:
            said += _inside_in_words(self.inside)
        rank, dim = self.geometry.effective_rank, self.geometry.dim
        said.append(f"Its {dim:,} values spread over {rank:.1f} directions (effective rank).")
        if self.geometry.alarm:
            said.append(f"Its embeddings have {self.geometry.alarm}")
        if self.pairs:
            different = f"different for {printable(self.sees)}"
            said.append(f"Shown below: pairs of pictures ({len(self.pairs)}), alike for it and {different}.")
        return said

    def records(self) -> list[dict[str, Any]]:
        """A plain record for each attribute, reader and probe; accuracies in percent."""
        return [
            {
                "attribute": each.name,
                "verdict": each.verdict,
                "reader": reader,
                "probe": probe,
                **interval._asdict(),
                "chance": each.chance,
                "classes": each.classes,
                "n_asked": each.n_asked,
            }
            for each in self.attributes
            for reader, readings in each.readings.items()
            for probe, interval in readings._asdict().items()
        ]

    def terminal_table(self) -> Table:
        """What the linear probe reads, and the encoder by kNN, for a terminal."""
        table = Table(title="Balanced accuracy in percent, with intervals of 95 %")
        readers = list(self.attributes[0].readings)[1:] if self.attributes else []
        for number, column in enumerate(["", "verdict", "linear", "kNN", *readers, "chance"]):
            aligned: Any = "right" if number > 1 else "left"
            table.add_column(Text(printable(column, 20)), justify=aligned, no_wrap=not number)
        for each in self.attributes:
            own, *others = each.readings.values()
            linear = own.linear
            cells = [f"{linear.accuracy:.0f} ({linear.low:.0f}-{linear.high:.0f})", f"{own.knn.accuracy:.0f}"]
            cells += [f"{other.linear.accuracy:.0f}" for other in others] + [f"{each.chance:.0f}"]
            table.add_row(*map(Text, [printable(each.name, 24), each.verdict, *cells]))
        return table

    def frame(self) -> pd.DataFrame:
        """`records` as a pandas frame.

        Raises:
            RecipeError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise RecipeError(_MISSING.format("frame()", "pandas")) from None
        return pd.DataFrame(self.records())

    def figure(self) -> Figure:
        """What the linear probe reads of each attribute, with intervals, chance and references.

        Raises:
            RecipeError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise RecipeError(_MISSING.format("figure()", "matplotlib")) from None
        shown = list(reversed(self.attributes))
        figure = Figure(figsize=(7, 1.2 + 0.45 * max(len(shown), 1)), layout="constrained")
        axes = figure.add_subplot(xlim=(0, 100), xlabel="balanced accuracy of the linear probe, percent")
        for place, each in enumerate(shown):
            own, *others = each.readings.items()
            linear = own[1].linear
            spread = [[linear.accuracy - linear.low], [linear.high - linear.accuracy]]
            colour = _COLOURS[each.verdict]
            axes.barh(place, linear.accuracy, 0.55, color=colour, alpha=0.75, xerr=spread, ecolor="#222222")
            axes.plot([each.chance] * 2, [place - 0.4, place + 0.4], ":", color="#222222")
            for marker, number, (_, readings) in zip("osD^", range(4), others, strict=False):
                axes.plot(readings.linear.accuracy, place, marker, color=f"C{number}", mec="white")
        axes.set_yticks(range(len(shown)), [f"{printable(a.name, 30)}: {a.verdict}" for a in shown])
        axes.set_title(textwrap.fill(printable(self.headline, 200), 60), fontsize=10, loc="left")
        if shown:
            names = list(shown[0].readings)[1:]
            for marker, number, name in zip("osD^", range(4), names, strict=False):
                axes.plot([], [], marker, color=f"C{number}", label=printable(name, 40))
            axes.plot([], [], ":", color="#222222", label="chance")
            figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
        return figure

    def to_json(self) -> str:
        """Everything but the pictures."""
        inside = self.inside
        content = {
            "encoder": self.encoder,
            "n_samples": self.n_samples,
            "n_total": self.n_total,
            "sentences": self.sentences,
            "attributes": self.records(),
            "inside": None
            if inside is None
            else {
                **inside._asdict(),
                "told": {name: told._asdict() for name, told in inside.told.items()},
                "agree": {name: purity._asdict() for name, purity in inside.agree.items()},
            },
            "geometry": self.geometry._asdict(),
            "pairs": [
                {
                    "ids": [shown.id for shown in pair.pictures],
                    "cosine": pair.cosine,
                    "other_cosine": pair.other_cosine,
                }
                for pair in self.pairs
            ],
            "sees": self.sees,
        }
        return json.dumps(content, indent=2)

    def to_html(self) -> str:
        """A page of its own, in one file."""
        return page(f"Diagnosis of {self.encoder}", self.headline, self._sections(), notes=self._said()[1:])

    def save(self, path: str | Path) -> None:
        """Writes the page to a .html file, or everything but the pictures to a .json file.

        Raises:
            RecipeError: The name ends in neither.
            DiskError: It cannot be written.
        """
        path = Path(path)
        if path.suffix not in (".html", ".json"):
            raise RecipeError(f"{path}: expected a file named *.html or *.json.")
        artifacts.write_text(path, self.to_html() if path.suffix == ".html" else self.to_json())

    def _repr_html_(self) -> str:
        return str(paragraphs(self.sentences) + self._table())

    def _table(self) -> Markup:
        readers = list(self.attributes[0].readings) if self.attributes else []
        columns = [
            "",
            "verdict",
            *(f"{reader}, {probe}" for reader in readers for probe in ("linear", "kNN")),
        ]
        rows = [
            [
                each.name,
                each.verdict,
                *(str(interval) for readings in each.readings.values() for interval in readings),
                f"{each.chance:.0f} %",
                f"{each.n_asked:,}",
            ]
            for each in self.attributes
        ]
        caption = "Balanced accuracy, with intervals of 95 %"
        return table(caption, [*columns, "chance", "samples asked about"], rows) if rows else Markup("")

    def _sections(self) -> list[Section]:
        sections = []
        if self.attributes:
            sections.append(
                Section("What it can tell", self._bars() + details("All figures", self._table()), _LEAD)
            )
        if self.inside is not None:
            sections.append(Section("What it cannot tell apart", self._inside(), _INSIDE_LEAD))
        if self.pairs:
            lead = f"Alike for this encoder, different for {self.sees}: what do the two differ in?"
            sections.append(Section("Blind pairs", strips(_PAIRS, self._strips()), lead))
        return [
            *sections,
            Section("Its embeddings", self._facts()),
            Section("How this was found", self._how()),
        ]

    def _bars(self) -> Markup:
        readers = list(self.attributes[0].readings)[1:]
        return render(
            "readings.html",
            groups=[(verdict, _MEANINGS[verdict], self.having(verdict)) for verdict in VERDICTS],
            marks=dict(zip(readers, _MARKS, strict=False)),
        )

    def _inside(self) -> Markup:
        assert self.inside is not None
        caption = f"Views told apart, in percent, of {self.inside.n_samples:,} samples"
        rows = [[name, f"{told.random:.0f}", f"{told.own:.0f}"] for name, told in self.inside.told.items()]
        rows.append(["guessing", *[f"{100 / self.inside.cell_size:.0f}"] * 2])
        figures = table(caption, ["", "among random pictures", "inside the cells"], rows)
        agree = [
            [name, f"{found.within:.0f}", f"{found.chance:.0f}"] for name, found in self.inside.agree.items()
        ]
        if agree:
            figures += table("Pairs that agree, in percent", ["", "of a cell", "of any two pictures"], agree)
        shown = [
            Strip(f"cell {number}", [_picture(each) for each in cell])
            for number, cell in enumerate(self.cells, 1)
        ]
        return figures + (strips(_CELLS, shown) if shown else Markup(""))

    def _strips(self) -> list[Strip]:
        return [
            Strip(
                f"pair {number}",
                [_picture(shown) for shown in pair.pictures],
                [f"this encoder {pair.cosine:.2f}", f"{self.sees} {pair.other_cosine:.2f}"],
            )
            for number, pair in enumerate(self.pairs, 1)
        ]

    def _facts(self) -> Markup:
        found, aligned = self.geometry, self.geometry.alignment
        said = [("width", f"{found.dim:,}"), ("effective rank", f"{found.effective_rank:.1f}")]
        said += [] if aligned is None else [("alignment of two views (0 is best)", f"{aligned:.2f}")]
        said += [("uniformity (lower is more even)", f"{found.uniformity:.2f}")]
        return facts([*said, ("collapse", found.alarm or "no sign of it")])

    def _how(self) -> Markup:
        counted = f"Looked at {self.n_samples:,} of {self.n_total:,} samples."
        return bullets([counted, *self.notes, *_HOW])


def _named(names: Sequence[str], most: int = _NAMED) -> str:
    """Names in a sentence, the first few of many.

    >>> _named(["shape"]), _named(["shape", "class"]), _named(list("abcdef"))
    ('shape', 'shape and class', 'a, b, c, d and 2 more')
    """
    shown = list(names[:most])
    rest = [f"{len(names) - most} more"] * (len(names) > most)
    *first, last = [*shown, *rest]
    return f"{', '.join(first)} and {last}" if first else last


def _short(attribute: Attribute) -> str:
    own = next(iter(attribute.readings.values()))
    return f"{printable(attribute.name)} ({own.linear.accuracy:.0f} %)"


def _in_words(attribute: Attribute) -> str:
    (_, own), *others = attribute.readings.items()
    beside = [f"{printable(name)} {readings.linear.accuracy:.0f} %" for name, readings in others]
    return (
        f"{printable(attribute.name)}: a linear probe reads {own.linear.accuracy:.0f} % rightly; "
        f"{', '.join([*beside, f'guessing {attribute.chance:.0f} %'])}."
    )


def _inside_in_words(inside: Inside) -> list[str]:
    (_, own), *others = inside.told.items()
    beside = "".join(f", {printable(name)} {told.own:.0f} %" for name, told in others)
    said = [
        f"It tells {own.random:.0f} % of views apart among random pictures, {own.own:.0f} % inside its own "
        f"cells, the {inside.cell_size:.0f} or so pictures that it finds most alike (there guessing finds "
        f"{100 / inside.cell_size:.0f} %{beside})."
    ]
    shared = {name: found for name, found in inside.agree.items() if found.within > _SHARED * found.chance}
    if shared:
        named = [
            f"{printable(name)} ({found.within:.0f} % of pairs, {found.chance:.0f} % of any two)"
            for name, found in sorted(shared.items(), key=lambda each: -each[1].within / each[1].chance)
        ]
        said.append(f"Pictures of a cell share {_named(named)}.")
    return said


def _picture(shown: Shown) -> Picture:
    return Picture(data_uri(shown.image), shown.id)


_MISSING = '{} needs {}: pip install "overtone[report]".'
_MEANINGS = {
    "ignored": "no better than without training, and less than half of it",
    "partly": "better than without training or at least half of it, not both",
    "learned": "better than without training and at least half of it, or most of it",
}
_LEAD = "What a linear probe reads from the frozen embeddings, with intervals of 95 %."
_INSIDE_LEAD = (
    "Its embeddings are clustered into small cells. Two views of a picture are then looked for among the "
    "pictures of its cell, and among as many drawn at random: what differs inside cells and is not found is "
    "what this encoder does not see."
)
_CELLS = "A row is a cell: pictures that the encoder finds alike. In what do they differ?"
_PAIRS = "The figures are cosines, 1 for what is the same."
_HOW = (
    RULE,
    "Accuracy is balanced: the mean over classes of the share read rightly, by probes that weigh classes "
    "alike, so chance is 100 % / classes however uneven they are.",
    "Up to 2,000 samples are asked about in five parts, each by probes that learned from the other four; of "
    "more samples a fifth is.",
    "Intervals are percentile bootstraps over the samples asked about, 1,000 draws; that the training of the "
    "probes varies too is not in them.",
    "Raw pixels are 16 x 16 of each picture. Random weights are this architecture before any training.",
    "A linear probe reads what lies open. What it cannot read may be there in a form that it cannot use.",
)
