from __future__ import annotations

import io
import logging
import multiprocessing

import pytest
from rich.console import Console

from overtone.progress import Bars, Remote, logging_to, plain

HOSTILE = "a\x1b[31mred\x07\r\u202e\udcff[bold]x[/] ☺"


def test_text_keeps_letters_and_emoji_and_loses_what_controls_a_terminal() -> None:
    assert plain(HOSTILE) == "a\\x1b[31mred\\x07\\r\\u202e\\udcff[bold]x[/] ☺"


@pytest.mark.parametrize("terminal", [False, True])
def test_names_from_the_data_cannot_move_the_cursor(terminal: bool) -> None:
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=terminal, width=200)) as bars:
        bars.advance(HOSTILE, 1, 2, HOSTILE)
        bars.line(HOSTILE)
        bars.advance(HOSTILE, 2, 2)
    assert "\x1b[31m" not in out.getvalue()
    assert "\\x1b[31mred" in out.getvalue()
    assert "[bold]x[/]" in out.getvalue()


def test_without_a_terminal_a_long_task_tells_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, now = io.StringIO(), iter([0.0, 30.0, 90.0, 100.0, 120.0])
    monkeypatch.setattr("overtone.progress.time.monotonic", lambda: next(now))
    bars = Bars(Console(file=out, width=200))
    for done in (10, 20, 40, 50, 100):
        bars.advance("stage 1", done, 100, "loss 2.000")
    assert out.getvalue() == "stage 1: 40 %, loss 2.000, about 3 min left\n"


def test_a_remote_display_sends_what_is_shown_under_the_name_of_its_run() -> None:
    here, there = multiprocessing.Pipe()
    remote = Remote(there, "seed 1")
    remote.advance("stage 0", 1, 2, "note")
    remote.line("hello")
    assert here.recv() == ("advance", ("seed 1 stage 0", 1, 2, "note"))
    assert here.recv() == ("line", ("seed 1: hello",))
    here.close()
    remote.line("nobody hears this")


def test_the_log_is_shown_while_the_block_runs_and_warnings_are_marked() -> None:
    out = io.StringIO()
    log = logging.getLogger("overtone.somewhere")
    with logging_to(Bars(Console(file=out))):
        log.info("read")
        log.warning("odd")
    with logging_to(Bars(Console(file=out)), logging.WARNING):
        log.info("quiet")
    log.info("after")
    assert out.getvalue() == "read\nwarning: odd\n"
