from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overtone.errors import RecipeError
from overtone.evaluation.bootstrap import Interval
from overtone.evaluation.verdict import Attribute, Readings, Verdict
from overtone.report.diagnosis import Diagnosis
from overtone.report.diagnosis_page import method_section
from overtone.report.diagnosis_parts import BlindPair, Geometry, Inside, Shown, Told
from overtone.report.gallery import Purity

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>\u202e'


def reading(accuracy: float) -> Readings:
    return Readings(Interval(accuracy, accuracy - 2, accuracy + 2), Interval(accuracy - 5, 0, 100))


def attribute(name: str, verdict: Verdict, accuracy: float = 30) -> Attribute:
    readers = {"this encoder": reading(accuracy), "random weights": reading(32), HOSTILE: reading(50)}
    return Attribute(name, verdict, 10, 10, 400, readers)


def diagnosis(attributes: Sequence[Attribute]) -> Diagnosis:
    shown = Shown(HOSTILE, Image.new("RGB", (8, 8)))
    return Diagnosis(
        encoder=HOSTILE,
        n_samples=400,
        n_total=500,
        geometry=Geometry(128, 30.0, -2.5, 0.2, None),
        attributes=attributes,
        inside=Inside(300, 30, {"this encoder": Told(97, 21)}, {HOSTILE: Purity(90, 10)}),
        cells=[[shown, shown]],
        pairs=[BlindPair((shown, shown), 0.99, 0.1)],
        sees=HOSTILE,
        notes=[HOSTILE],
    )


class Tags(HTMLParser):
    """Every tag with its attributes, as a browser would open it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("part", ["page", "fragment"])
def test_names_of_files_labels_and_encoders_are_text_and_nothing_else(part: str) -> None:
    found = diagnosis([attribute(HOSTILE, "ignored"), attribute("shape", "learned", 90)])
    tags = Tags(found.to_html() if part == "page" else found._repr_html_()).found
    assert "script" not in {tag for tag, _ in tags}
    for tag, given in tags:
        assert not [name for name in given if name.startswith("on") or name == "style"]
        if tag == "img":
            assert str(given["src"]).startswith("data:image/")
        if tag == "a":
            assert str(given["href"]).startswith("#")


def test_the_page_needs_nothing_from_elsewhere_and_names_its_pictures() -> None:
    tags = Tags(diagnosis([attribute("shape", "ignored")]).to_html()).found
    assert {tag for tag, _ in tags} & {"link", "iframe", "object", "embed", "form", "base"} == set()
    assert all(given.get("alt") for tag, given in tags if tag == "img")
    assert sum(given.get("role") == "img" for tag, given in tags if tag == "svg") == 1


def test_what_is_ignored_stands_first_and_many_names_are_counted() -> None:
    several = [attribute(name, "ignored") for name in "abcdef"]
    assert diagnosis(several).sentences[0] == "This encoder ignores a, b, c, d and 2 more."
    nothing = diagnosis([attribute("shape", "learned", 90), attribute("class", "partly", 40)])
    assert nothing.sentences[:3] == [
        "This encoder ignores nothing that was asked about (shape and class).",
        "Learned in part: class (40 %).",
        "Learned: shape (90 %).",
    ]


def test_inside_and_outside_cells_is_said_in_one_sentence() -> None:
    (said,) = [text for text in diagnosis([]).sentences if text.startswith("It tells")]
    assert said.startswith("It tells 97 % of views apart among random pictures, 21 % inside its own cells")


def test_json_holds_what_the_sentences_say_and_a_frame_the_same_rows(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    found = diagnosis([attribute("shape", "ignored")])
    found.save(tmp_path / "d.json")
    content = json.loads((tmp_path / "d.json").read_text())
    assert content["sentences"][0] == "This encoder ignores shape."
    assert content["inside"]["told"]["this encoder"] == {"random": 97, "own": 21}
    pandas.testing.assert_frame_equal(
        found.frame(), pandas.DataFrame(content["attributes"]), check_dtype=False
    )


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"expected a file named \*\.html or \*\.json"):
        diagnosis([]).save(tmp_path / "d.pdf")


def test_without_anything_to_ask_about_the_figure_and_the_fragment_are_empty_and_whole() -> None:
    pytest.importorskip("matplotlib")
    found = diagnosis([])
    assert "<table>" not in found._repr_html_()
    found.figure()


def test_no_sentence_on_how_it_was_found_is_cut() -> None:
    assert "…" not in method_section([])


def test_a_notebook_shows_the_figure_and_a_terminal_prints_the_sentences_not_the_fields() -> None:
    pytest.importorskip("matplotlib")
    found = diagnosis([attribute("shape", "ignored")])
    figure: Any = found.figure()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert repr(found) == "<Diagnosis: This encoder ignores shape.>"
    assert str(found) == "\n".join(found.sentences)


def test_its_pictures_are_a_row_a_cell_and_a_row_a_pair() -> None:
    red, green = (Shown("1", Image.new("RGB", (8, 8), colour)) for colour in ("red", "lime"))
    found = dataclasses.replace(diagnosis([]), cells=[[red] * 3], pairs=[BlindPair((green, green), 1, 0)])
    counts = {colour: n for n, colour in found.pictures().getcolors(10_000) or []}
    assert counts[255, 0, 0] == 3 * 64
    assert counts[0, 255, 0] == 2 * 64


def test_without_cells_and_pairs_there_are_no_pictures_and_that_is_said() -> None:
    with pytest.raises(RecipeError, match="neither cells nor pairs"):
        dataclasses.replace(diagnosis([]), cells=(), pairs=()).pictures()
