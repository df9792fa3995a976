"""A page in a real browser: no error, no request, and a picture of it in every form it takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from test_page import HOSTILE, everything

from overtone.report.page import Section, choice, page, paragraphs

CHROMIUM = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --v=0"
)
# What a browser asks of its maker, whatever it shows.
OWN = re.compile(r"https?://([\w-]+\.)*(google|googleapis|gstatic|gvt1)\.com/")


class Shown(NamedTuple):
    """A page in the browser: its picture, what was logged, and the addresses that were asked for."""

    picture: Image.Image
    log: str
    asked: set[str]


def show(html: str, home: Path, *, width: int = 1280, dark: bool = False) -> Shown:
    """Opens a page in a browser of its own."""
    home.mkdir()
    (home / "page.html").write_text(html, encoding="utf-8")
    places = [f"--user-data-dir={home / 'user'}", f"--log-net-log={home / 'net.json'}"]
    look = [f"--window-size={width},1500", f"--screenshot={home / 'page.png'}"]
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    page = (home / "page.html").as_uri()
    command = [str(CHROMIUM), *FLAGS.split(), *places, *look, *scheme, page]
    log = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stderr
    asked = set(re.findall(r'"url":"((?:https?|wss?|ftp):[^"]*)"', (home / "net.json").read_text()))
    asked = {address for address in asked if not OWN.match(address)}
    return Shown(Image.open(home / "page.png").convert("RGB"), log, asked)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """A page full of hostile texts: light, dark, and on a phone."""
    home, html = tmp_path_factory.mktemp("browser"), everything(" ".join(HOSTILE[:7]))
    forms: dict[str, dict[str, Any]] = {"light": {}, "dark": {"dark": True}, "phone": {"width": 500}}
    return {name: show(html, home / name, **options) for name, options in forms.items()}


def test_a_browser_complains_of_nothing_and_asks_for_nothing(pages: dict[str, Shown]) -> None:
    for shown in pages.values():
        assert "CONSOLE" not in shown.log
        assert not shown.asked


def test_what_the_policy_forbids_is_forbidden(tmp_path: Path) -> None:
    attack = '<img src="http://127.0.0.1:9/x.png"><script>console.log("run")</script></main>'
    html = everything("a").replace("</main>", attack)
    shown = show(html, tmp_path / "attacked")
    assert shown.log.count("Content Security Policy") >= 2
    assert not shown.asked
    open_to_all = show(html.replace("Content-Security-Policy", "none"), tmp_path / "open")
    assert open_to_all.asked == {"http://127.0.0.1:9/x.png"}  # so it would have been seen
    assert '"run"' in open_to_all.log


def test_the_page_is_light_or_dark_as_the_reader_likes(pages: dict[str, Shown]) -> None:
    light, dark = (np.asarray(pages[name].picture) for name in ("light", "dark"))
    assert np.median(light) > 230
    assert np.median(dark) < 40


def test_nothing_reaches_beyond_a_narrow_screen(pages: dict[str, Shown]) -> None:
    narrow = np.asarray(pages["phone"].picture).astype(int)
    edge = narrow[:, -8:]
    assert abs(edge - np.median(narrow, axis=(0, 1))).max() < 40  # paper alone


def test_the_chosen_panel_alone_is_shown_without_a_script(tmp_path: Path) -> None:
    panels = [(name, paragraphs([sign * 2000])) for name, sign in (("one", "█"), ("two", "."))]
    html = page("t", "h", [Section("s", choice("c", "Which", panels))])
    other = html.replace('name="c" checked', 'name="c"').replace(
        'class="pick-1" name="c"', 'class="pick-1" name="c" checked'
    )
    first, second = (
        (np.asarray(show(text, tmp_path / str(number)).picture) < 100).mean()
        for number, text in enumerate((html, other))
    )
    assert first > 5 * second


def test_the_page_prints(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(everything("a"))
    command = [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={tmp_path / 'user'}"]
    command += [f"--print-to-pdf={tmp_path / 'page.pdf'}", (tmp_path / "page.html").as_uri()]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
