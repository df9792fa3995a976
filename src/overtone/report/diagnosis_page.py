"""The parts of the page of a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from overtone.evaluation.verdict import RULE, VERDICTS, Attribute
from overtone.report.diagnosis_parts import BlindPair, Geometry, Inside, Shown
from overtone.report.page import (
    Picture,
    Section,
    Strip,
    bullets,
    data_uri,
    details,
    facts,
    render,
    strips,
    table,
)

_MARKS = ("circle", "square", "diamond")
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
    *RULE,
    "Accuracy is balanced: the mean over classes of the share read rightly, by probes that weigh classes "
    "alike, so chance is 100 % / classes however uneven they are.",
    "Up to 2,000 samples are asked about in five parts, each by probes that learned from the other four; of "
    "more samples a fifth is.",
    "Intervals are percentile bootstraps over the samples asked about, 1,000 draws; that the training of the "
    "probes varies too is not in them.",
    "Raw pixels are 16 x 16 of each picture. Random weights are this architecture before any training.",
    "A linear probe reads what lies open. What it cannot read may be there in a form that it cannot use.",
)


def attributes_section(attributes: Sequence[Attribute]) -> Section:
    """A bar for each attribute, what is ignored first, and all figures on request."""
    readers = list(attributes[0].readings)[1:]
    bars = render(
        "readings.html",
        groups=[
            (verdict, _MEANINGS[verdict], [each for each in attributes if each.verdict == verdict])
            for verdict in VERDICTS
        ],
        marks=dict(zip(readers, _MARKS, strict=False)),
    )
    return Section("What it can tell", bars + details("All figures", figures_table(attributes)), _LEAD)


def figures_table(attributes: Sequence[Attribute]) -> Markup:
    """Every figure; nothing where nothing was asked about."""
    if not attributes:
        return Markup("")
    readers = list(attributes[0].readings)
    columns = [f"{reader}, {probe}" for reader in readers for probe in ("linear", "kNN")]
    rows = [
        [
            each.name,
            each.verdict,
            *(str(interval) for readings in each.readings.values() for interval in readings),
            f"{each.chance:.0f} %",
            f"{each.n_asked:,}",
        ]
        for each in attributes
    ]
    caption = "Balanced accuracy, with intervals of 95 %"
    return table(caption, ["", "verdict", *columns, "chance", "samples asked about"], rows)


def inside_section(inside: Inside, cells: Sequence[Sequence[Shown]]) -> Section:
    """What is told apart inside cells, what their pictures share, and some of them."""
    guessing = f"{100 / inside.cell_size:.0f}"
    told = [[name, f"{found.random:.0f}", f"{found.own:.0f}"] for name, found in inside.told.items()]
    caption = f"Views told apart, in percent, of {inside.n_samples:,} samples"
    columns = ["", "among random pictures", "inside the cells"]
    body = table(caption, columns, [*told, ["guessing", guessing, guessing]])
    agree = [[name, f"{found.within:.0f}", f"{found.chance:.0f}"] for name, found in inside.agree.items()]
    if agree:
        body += table("Pairs that agree, in percent", ["", "of a cell", "of any two pictures"], agree)
    if cells:
        rows = [Strip(f"cell {number}", list(map(_picture, cell))) for number, cell in enumerate(cells, 1)]
        body += strips(_CELLS, rows)
    return Section("What it cannot tell apart", body, _INSIDE_LEAD)


def pairs_section(pairs: Sequence[BlindPair], sees: str) -> Section:
    """Pairs of pictures with the cosines of both readers."""
    rows = [
        Strip(
            f"pair {number}",
            list(map(_picture, pair.pictures)),
            [f"this encoder {pair.cosine:.2f}", f"{sees} {pair.other_cosine:.2f}"],
        )
        for number, pair in enumerate(pairs, 1)
    ]
    lead = f"Alike for this encoder, different for {sees}: what do the two differ in?"
    return Section("Blind pairs", strips(_PAIRS, rows), lead)


def geometry_section(found: Geometry) -> Section:
    """How the embeddings lie, in a few figures."""
    said = [("width", f"{found.dim:,}"), ("effective rank", f"{found.effective_rank:.1f}")]
    if found.alignment is not None:
        said.append(("alignment of two views (0 is best)", f"{found.alignment:.2f}"))
    said.append(("uniformity (lower is more even)", f"{found.uniformity:.2f}"))
    return Section("Its embeddings", facts([*said, ("collapse", found.alarm or "no sign of it")]))


def method_section(notes: Sequence[str]) -> Section:
    """How all this was found, beginning with what was drawn or left out."""
    return Section("How this was found", bullets([*notes, *_HOW]))


def _picture(shown: Shown) -> Picture:
    return Picture(data_uri(shown.image), shown.id)
