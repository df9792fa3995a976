from __future__ import annotations

import base64
import hashlib
import io
import re

import pytest
from html_page import Parsed, require_inert
from markupsafe import Markup
from PIL import Image

from overtone.report.charts import Curve, Group, bar_chart, line_chart, picture_map, scatter
from overtone.report.page import (
    DARK,
    LEVELS,
    LIGHT,
    LONGEST,
    SERIES,
    Cell,
    HeatRow,
    Picture,
    Section,
    Strip,
    bullets,
    choice,
    data_uri,
    details,
    facts,
    figure,
    heat_map,
    joined,
    lines,
    page,
    paragraphs,
    ramp,
    strips,
    table,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "]]></style><svg onload=alert(1)>",
    "'; background: url(https://example.org/x); '",
    "{{ 7 * 7 }}{% include 'page.html' %}",
    "star\u202egnp.exe\u2066\u200b",
    "\x1b[31mred\x00\x07\r",
    "\udce9\ud800",
    "a" * 1_000_000,
]
PIXELS = data_uri(Image.new("RGB", (8, 8), (255, 0, 0)))


def everything(text: str) -> str:
    """A page with the text in every place that takes one."""
    parts = [
        paragraphs([text]),
        bullets([text]),
        facts([(text, text)]),
        table(text, ["", text], [[text, text]]),
        heat_map(text, [text], [HeatRow(text, [Cell(text, 0.5, text, True)], text)], groups=[(text, 1)]),
        strips(text, [Strip(text, [Picture(PIXELS, text, text), Picture(None, text)], [text])]),
        figure(text, PIXELS, text),
        choice("c", text, [(text, paragraphs([text]))]),
        details(text, lines([text, text])),
        line_chart(text, [Curve(text, [(0, 1), (1, 2)])], x=text, y=text),
        bar_chart(text, [(text, 1.0)], x=text, y=text),
        scatter(text, [Group(text, [(0.5, 0.5)], style) for style in (0, 1, None)], said=text),
        picture_map(text, [(0.5, 0.5, PIXELS)]),
    ]
    return page(text, text, [Section(text, joined(parts), text)], notes=[text])


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_inert_wherever_it_stands(text: str) -> None:
    harmless, hostile = Parsed(everything("a")), require_inert(everything(text))
    assert [name for name, _ in hostile.tags] == [name for name, _ in harmless.tags]
    assert [sorted(given) for _, given in hostile.tags] == [sorted(given) for _, given in harmless.tags]


def test_what_turns_the_direction_or_moves_a_cursor_is_shown_as_a_sign_and_long_text_is_cut() -> None:
    assert "star\ufffdx\ufffd[31m" in paragraphs(["star\u202ex\x1b[31m"])
    assert len(paragraphs(["a" * 1_000_000])) < 2 * LONGEST


def test_the_policy_names_the_one_style_sheet_and_allows_else_only_pictures_inside_the_page() -> None:
    html = everything("a")
    (policy,) = [m["content"] for m in Parsed(html).named("meta") if "http-equiv" in m]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-{digest}'"
    )
    assert not re.search(r"url\(|@import|expression", style)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_from_paper_and_from_every_shade_in_both_schemes() -> None:
    html = everything("a")
    inks, papers, quiets = (re.findall(rf"--{name}: (#\w{{6}})", html) for name in ("ink", "paper", "quiet"))
    for ends, ink, paper, quiet in zip((LIGHT, DARK), inks, papers, quiets, strict=False):
        shades = ramp(*ends)
        assert len(shades) == LEVELS + 1
        assert min(_contrast(ink, shade) for shade in [*shades, paper]) >= 4.5  # WCAG 2.2, 1.4.3
        assert _contrast(quiet, paper) >= 4.5


def test_marks_tell_groups_apart_without_colour_and_dashes_tell_curves() -> None:
    dots = Parsed(scatter("", [Group(str(s), [(0.5, 0.5)], s) for s in range(SERIES)]))
    shapes = {re.sub(r"^M\d+ \d+", "", path["d"] or "") for path in dots.named("path")}
    assert len(shapes) == SERIES
    drawn = Parsed(line_chart("", [Curve(str(s), [(0, s), (1, 0)], s) for s in range(5)]))
    assert len({path.get("stroke-dasharray") for path in drawn.named("path") if path["class"] != "grid"}) == 5


def test_charts_say_in_words_what_they_show_and_leave_out_what_is_not_finite() -> None:
    drawn = Parsed(line_chart("Loss", [Curve("stage 0", [(0, 4), (1, float("nan")), (2, 1)])]))
    assert ("title", "Loss") in drawn.texts
    assert ("desc", "stage 0 from 4 to 1") in drawn.texts
    assert "nan" not in str(drawn.tags)
    assert line_chart("Loss", [Curve("stage 0", [(0, float("inf"))])]) == ""


def test_a_curve_of_a_million_points_is_drawn_with_few() -> None:
    assert len(line_chart("", [Curve("", [(i, i) for i in range(1_000_000)])])) < 10_000


def test_a_picture_is_drawn_anew_and_keeps_nothing_of_its_file() -> None:
    image = Image.effect_noise((64, 64), 50).convert("RGBA")
    image.info["comment"] = b"<script>"
    uri = data_uri(image)
    assert isinstance(uri, Markup)
    drawn = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert drawn.size == (64, 64)
    assert "comment" not in drawn.info


def test_the_page_has_landmarks_headings_in_order_names_for_tables_and_text_for_pictures() -> None:
    html = page(
        "t", "h", [Section("a", table("cap", ["", "x"], [["r", "1"]])), Section("b", paragraphs(["p"]))]
    )
    parsed = Parsed(html)
    assert [name for name, _ in parsed.tags if name in ("h1", "h2", "h3")] == ["h1", "h2", "h2"]
    assert {"header", "nav", "main", "footer"} <= {name for name, _ in parsed.tags}
    assert parsed.named("a")[0] == {"class": "skip", "href": "#main"}
    assert {th["scope"] for th in parsed.named("th")} == {"col", "row"}
    assert all(image["alt"] for image in Parsed(everything("a")).named("img"))
    ids = [given["id"] for _, given in Parsed(everything("a")).tags if "id" in given]
    assert len(ids) == len(set(ids))
