"""A page to look at: one HTML file that holds everything, runs no script and asks nothing of a network.

Everything a page shows passes through the templates beside this module, which escape it and replace what is
not printable, so that no caption, label or name of a file can be more than text. Colours and sizes are
classes of the one style sheet: the page's policy allows that sheet, pictures inside the page, and nothing
else, so an inline `style` has no effect.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

LONGEST = 400  # characters of one text; what is longer is cut, so that no name can fill a page
LEVELS = 20  # shades of a heat map
CHOICES = 16  # panels of one choice, at most
SERIES = 10  # colours and marks that a chart tells apart
POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
LIGHT, DARK = ("#ffffff", "#8fc3bd"), ("#17191c", "#1b6b66")  # a heat map's least and most


class Section(NamedTuple):
    """A part of a page: its heading, a sentence on what it shows, and what it holds."""

    heading: str
    body: Markup
    lead: str = ""


class Cell(NamedTuple):
    """A figure of a heat map: its text, its strength from 0 to 1, a smaller text, whether it is best."""

    text: str
    level: float | None = None
    note: str = ""
    best: bool = False


class HeatRow(NamedTuple):
    """A row of a heat map; rows of one group stand together."""

    name: str
    cells: Sequence[Cell]
    group: str = ""


class Picture(NamedTuple):
    """A picture of a strip: its `data_uri` or None, what it shows in words, and a text below it."""

    uri: Markup | None
    alt: str
    caption: str = ""


class Strip(NamedTuple):
    """Pictures in a row, with a name and a few words."""

    name: str
    pictures: Sequence[Picture]
    words: Sequence[str] = ()


def page(title: str, headline: str, sections: Sequence[Section], *, notes: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        title: What it is about, short.
        headline: What was found, in one sentence.
        sections: In their order; the page begins with a list of them.
        notes: Sentences below the headline.

    >>> html = page("A run", "<b> rose.", [Section("Curves", paragraphs(["None yet."]))])
    >>> "&lt;b&gt; rose." in html, "<script" in html
    (True, False)
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = _environment().get_template("page.html")
    return template.render(
        title=title,
        headline=headline,
        notes=notes,
        sections=sections,
        style=Markup(style),
        policy=Markup(f"{POLICY}; style-src 'sha256-{digest}'"),
    )


def paragraphs(texts: Sequence[str]) -> Markup:
    """A paragraph for each text.

    >>> print(paragraphs(["a < b"]))
    <p>a &lt; b</p>
    """
    return _part("paragraphs", texts)


def joined(parts: Iterable[Markup]) -> Markup:
    """Parts one after the other.

    >>> print(joined([paragraphs(["a"]), paragraphs(["b"])]))
    <p>a</p><p>b</p>
    """
    return Markup("").join(parts)


def charts(parts: Iterable[Markup]) -> Markup:
    """Charts or tables side by side where there is room.

    >>> print(charts([paragraphs(["a"])]))
    <div class="charts"><p>a</p></div>
    """
    return Markup('<div class="charts">{}</div>').format(joined(parts))


def beside(first: Markup, second: Markup) -> Markup:
    """Two parts, the second at the right of the first where there is room.

    >>> print(beside(paragraphs(["a"]), paragraphs(["b"])))
    <div class="beside"><div><p>a</p></div><div><p>b</p></div></div>
    """
    return Markup('<div class="beside"><div>{}</div><div>{}</div></div>').format(first, second)


def bullets(texts: Sequence[str]) -> Markup:
    """A list, an item for each text.

    >>> "<li>one</li>" in bullets(["one"])
    True
    """
    return _part("bullets", texts)


def facts(pairs: Sequence[tuple[str, str]]) -> Markup:
    """Short facts, each a name and a value.

    >>> "<dt>images seen</dt>" in facts([("images seen", "90,000")])
    True
    """
    return _part("facts", pairs)


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False
) -> Markup:
    """A table whose first column names the rows; of numbers, or of `words`, which begin at the left.

    >>> table("Cost", ["", "seconds"], [["stage 0", "12"]]).count("<th scope")
    2
    """
    return _part("table", caption, columns, rows, words)


def heat_map(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[HeatRow],
    *,
    groups: Sequence[tuple[str, int]] = (),
    corner: str = "",
) -> Markup:
    """A table of figures, the stronger the darker behind them; the best are also marked by a sign.

    Args:
        caption: What the figures are, and what colour means.
        columns: Names.
        rows: A cell for each column.
        groups: Above the columns: a name and how many of them it spans.
        corner: Above the names of the rows.

    >>> "l20" in heat_map("", ["shape"], [HeatRow("stage 0", [Cell("99.0", 1.0)])])
    True
    """
    return _part("heat_map", caption, columns, rows, groups, corner)


def strips(caption: str, rows: Sequence[Strip]) -> Markup:
    """A figure of rows of pictures, each with its name and words beside it.

    >>> "<figcaption>Cells</figcaption>" in strips("Cells", [Strip("cell 0", [Picture(None, "a star")])])
    True
    """
    return _part("strips", caption, rows)


def figure(caption: str, uri: Markup, alt: str) -> Markup:
    """One large picture.

    >>> '<img src="data:," alt="hidden"' in figure("What was hidden", Markup("data:,"), "hidden")
    True
    """
    return _part("figure", caption, uri, alt)


def choice(name: str, question: str, options: Sequence[tuple[str, Markup]]) -> Markup:
    """Panels of which a reader chooses one by radio buttons; printed, all are shown.

    Args:
        name: Unlike that of any other choice on the page: letters, digits and hyphens.
        question: Above the buttons.
        options: Label and panel; beyond `CHOICES` they are left out.

    >>> choice("map", "Colour by", [("shape", Markup("")), ("colour", Markup(""))]).count('type="radio"')
    2
    """
    return _part("choice", name, question, list(options[:CHOICES]))


def details(summary: str, body: Markup) -> Markup:
    """What opens on request.

    >>> print(details("The recipe", paragraphs(["seed: 0"])))
    <details><summary>The recipe</summary><p>seed: 0</p></details>
    """
    return _part("details", summary, body)


def lines(texts: Sequence[str]) -> Markup:
    """Lines of a file, as they are.

    >>> print(lines(["seed: 0", "  n: 1"]))
    <pre tabindex="0">seed: 0
      n: 1</pre>
    """
    return _part("lines", texts)


def render(template: str, **values: Any) -> Markup:
    """A template of this package with values, safe to stand in a page."""
    return Markup(_environment().get_template(template).render(values))


def data_uri(image: Image.Image, *, quality: int = 80) -> Markup:
    """A picture as text that stands in a page: drawn anew, so that nothing but its pixels is kept.

    JPEG, or PNG where that is smaller, as it is for drawings.

    >>> print(data_uri(Image.new("RGB", (8, 8)))[:15])
    data:image/png;
    """
    plain = image.convert("RGB")
    plain = Image.frombytes(
        "RGB", plain.size, plain.tobytes()
    )  # a comment or a profile would be saved with it
    made = {}
    # PNG's `optimize` takes ten times as long for two percent of the bytes.
    for kind, options in (("png", {}), ("jpeg", {"quality": quality, "optimize": True})):
        plain.save(buffer := io.BytesIO(), kind, **options)
        made[kind] = buffer.getvalue()
    kind = min(made, key=lambda name: len(made[name]))
    return Markup(f"data:image/{kind};base64,{base64.b64encode(made[kind]).decode()}")


def readable(text: object) -> object:
    """Text with what is not printable, such as characters that turn the direction, as signs that show it.

    >>> print(readable("star\\u202e\\x1b[31m"))
    star��[31m
    """
    if not isinstance(text, str) or isinstance(text, Markup):
        return text
    cut = text[:LONGEST]
    shown = "".join(c if c.isprintable() else " " if c in "\n\t" else "\ufffd" for c in cut)
    return shown + "…" if len(text) > LONGEST else shown


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("overtone.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=readable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"level": _level, "grouped": _grouped}
    return made


@cache
def _style() -> str:
    shades = {"light": ramp(*LIGHT), "dark": ramp(*DARK)}
    return str(render("style.css", **shades, choices=range(CHOICES), series=range(SERIES)))


def _part(macro: str, *values: Any) -> Markup:
    module = _environment().get_template("parts.html").module
    return Markup(str(getattr(module, macro)(*values)).strip())


def _level(share: float | None) -> str:
    """The class of a shade."""
    return "" if share is None else f"l{round(min(max(share, 0.0), 1.0) * LEVELS)}"


def _grouped(rows: Sequence[HeatRow]) -> list[tuple[str, list[HeatRow]]]:
    return [(name, list(found)) for name, found in groupby(rows, lambda row: row.group)]


def ramp(least: str, most: str) -> list[str]:
    """The colours of `LEVELS` + 1 shades between two.

    >>> ramp("#000000", "#ffffff")[10]
    '#808080'
    """
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (least, most)]
    shares = [level / LEVELS for level in range(LEVELS + 1)]
    mixed = [[round(a + share * (b - a)) for a, b in zip(*ends, strict=True)] for share in shares]
    return ["#" + "".join(f"{value:02x}" for value in colour) for colour in mixed]
