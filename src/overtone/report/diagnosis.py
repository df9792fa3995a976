"""What was found of a frozen encoder: as sentences, a frame, a figure, a page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from overtone import artifacts
from overtone.errors import RecipeError
from overtone.evaluation.verdict import Attribute, Verdict
from overtone.report import printable
from overtone.report.diagnosis_page import (
    attributes_section,
    figures_table,
    geometry_section,
    inside_section,
    method_section,
    pairs_section,
)
from overtone.report.diagnosis_parts import (
    LISTED,
    NAMED,
    BlindPair,
    Geometry,
    Inside,
    Shown,
    in_words,
    inside_in_words,
    named,
    short,
)
from overtone.report.page import page, paragraphs
from overtone.report.sheet import sheet

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

_COLOURS = {"ignored": "#c2500a", "partly": "#86680a", "learned": "#00805a"}
_MARKERS = "os^D"  # of the others who read, as many as there can be
_MISSING = '{} needs {}: pip install "overtone[report]".'


@dataclass(frozen=True, repr=False)
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

    >>> from overtone.report.diagnosis_parts import Geometry
    >>> print(Diagnosis("mine", 100, 100, geometry=Geometry(8, 5.0, -2.0, None, None)))
    No attribute could be asked about: what follows needs none.
    Its 8 values spread over 5.0 directions (effective rank).
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
    notes: Sequence[str] = ()

    def having(self, verdict: Verdict) -> list[Attribute]:
        """The attributes with a verdict."""
        return [attribute for attribute in self.attributes if attribute.verdict == verdict]

    @property
    def headline(self) -> str:
        """The first sentence: what is ignored."""
        if not self.attributes:
            return "No attribute could be asked about: what follows needs none."
        if ignored := self.having("ignored"):
            return f"This encoder ignores {named([each.name for each in ignored])}."
        asked = named([each.name for each in self.attributes])
        return f"This encoder ignores nothing that was asked about ({asked})."

    @property
    def sentences(self) -> list[str]:
        """All of it in plain language, what matters most first, `notes` last."""
        return [*self._said(), *self.notes]

    def _said(self) -> list[str]:
        said = [self.headline, *map(in_words, self.having("ignored")[:NAMED])]
        begins: dict[Verdict, str] = {"partly": "Learned in part", "learned": "Learned"}
        for verdict, begin in begins.items():
            if found := self.having(verdict):
                said.append(f"{begin}: {named(list(map(short, found)), LISTED)}.")
        if self.inside is not None:
            said += inside_in_words(self.inside)
        rank, dim = self.geometry.effective_rank, self.geometry.dim
        said.append(f"Its {dim:,} values spread over {rank:.1f} directions (effective rank).")
        if self.geometry.alarm:
            said.append(f"Its embeddings have {self.geometry.alarm}")
        if self.pairs:
            clearest = f"the page shows the clearest, {len(self.pairs)} of them"
            said.append(f"Pairs are alike for it and different for {printable(self.sees)}: {clearest}.")
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

        class Displayed(Figure):
            """Made without pyplot; a notebook would show the name of such a figure alone."""

            def _repr_png_(self) -> bytes:
                written = BytesIO()
                self.savefig(written, format="png")
                return written.getvalue()

        figure = Displayed(figsize=(7, 1.2 + 0.45 * max(len(shown), 1)), layout="constrained")
        axes = figure.add_subplot(xlim=(0, 100), xlabel="balanced accuracy of the linear probe, percent")
        for place, each in enumerate(shown):
            own, *others = each.readings.items()
            linear = own[1].linear
            spread = [[linear.accuracy - linear.low], [linear.high - linear.accuracy]]
            colour = _COLOURS[each.verdict]
            axes.barh(place, linear.accuracy, 0.55, color=colour, alpha=0.75, xerr=spread, ecolor="#222222")
            axes.plot([each.chance] * 2, [place - 0.4, place + 0.4], ":", color="#222222")
            for number, (marker, (_, readings)) in enumerate(zip(_MARKERS, others, strict=False)):
                axes.plot(readings.linear.accuracy, place, marker, color=f"C{number}", mec="white")
        axes.set_yticks(range(len(shown)), [f"{printable(a.name, 30)}: {a.verdict}" for a in shown])
        axes.set_title(textwrap.fill(printable(self.headline, 200), 60), fontsize=10, loc="left")
        if shown:
            names = list(shown[0].readings)[1:]
            for number, (marker, name) in enumerate(zip(_MARKERS, names, strict=False)):
                axes.plot([], [], marker, color=f"C{number}", label=printable(name, 40))
            axes.plot([], [], ":", color="#222222", label="chance")
            figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
        return figure

    def pictures(self) -> Image:
        """Its cells and its blind pairs as one picture, a row each.

        Raises:
            RecipeError: There are none: the samples are no pictures, or the encoder tells all of them apart.
        """
        rows = [([f"cell {number}"], cell) for number, cell in enumerate(self.cells, 1)]
        for number, pair in enumerate(self.pairs, 1):
            cosines = [f"this encoder {pair.cosine:.2f}", f"{printable(self.sees)} {pair.other_cosine:.2f}"]
            rows.append(([f"pair {number}", *cosines], pair.pictures))
        if not rows:
            raise RecipeError("pictures(): this diagnosis has neither cells nor pairs to show; see `notes`.")
        texts, shown = zip(*rows, strict=True)
        return sheet("", texts, [[each.image for each in row] for row in shown])

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
        counted = f"Looked at {self.n_samples:,} of {self.n_total:,} samples."
        sections = [
            *([attributes_section(self.attributes)] if self.attributes else []),
            *([] if self.inside is None else [inside_section(self.inside, self.cells)]),
            *([pairs_section(self.pairs, self.sees)] if self.pairs else []),
            geometry_section(self.geometry),
            method_section([counted, *self.notes]),
        ]
        return page(f"Diagnosis of {self.encoder}", self.headline, sections, notes=self._said()[1:])

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

    def __repr__(self) -> str:
        return f"<Diagnosis: {self.headline}>"

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        return str(paragraphs(self.sentences) + figures_table(self.attributes))
