"""How work tells the person who waits for it how far it is: three small displays of one shape."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 60.0


def plain(text: str) -> str:
    """Text that can neither move a cursor nor colour what follows: what is not printable, as its escape.

    >>> print(plain("cat\\x1b[31m.jpg"))
    cat\\x1b[31m.jpg
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """A time as a person says it.

    >>> duration(75), duration(300)
    ('75 s', '5 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Display(Protocol):
    """Shows tasks that advance and lines of text."""

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        """A task stands at `done` of `total`."""

    def line(self, text: str) -> None:
        """Something a person should read."""


class Silent:
    """Shows nothing."""

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        """Ignored."""

    def line(self, text: str) -> None:
        """Ignored."""


class Remote:
    """Sends everything to the display of another process, each task under the name of its run."""

    def __init__(self, line: Connection, run: str) -> None:
        self._line, self.run = line, run

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        """Sends the state of a task."""
        self._send("advance", f"{self.run} {task}".strip(), done, total, note)

    def line(self, text: str) -> None:
        """Sends a line."""
        self._send("line", f"{self.run}: {text}" if self.run else text)

    def _send(self, kind: str, *arguments: Any) -> None:
        with suppress(OSError):  # nobody is left to show it to, and this process is about to be stopped
            self._line.send((kind, arguments))


class _Began(NamedTuple):
    """When a task was first heard of and last spoken of, in seconds, and where it stood at first."""

    first: float
    last: float
    done: int


class Bars:
    """Progress bars in a terminal; where the output is none, plain lines, one a minute for a long task."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, _Began] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        """Moves the bar of a task; a finished one goes away."""
        task, note = plain(task), plain(note)
        if not self.console.is_terminal:
            self._tell(task, done, total, note, time.monotonic())
            return
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, note=note)
        self._progress.update(self._tasks[task], completed=done, total=total, note=note)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(task))

    def line(self, text: str) -> None:
        """Prints a line above the bars."""
        self._progress.console.print(Text(plain(text)), soft_wrap=True)

    def _tell(self, task: str, done: int, total: int, note: str, now: float) -> None:
        began = self._began.setdefault(task, _Began(now, now, done))
        if done >= total:
            del self._began[task]
        elif now - began.last >= SECONDS_BETWEEN_LINES and done > began.done:
            left = (now - began.first) / (done - began.done) * (total - done)
            self._began[task] = began._replace(last=now)
            self.line(f"{task}: {100 * done / total:.0f} %, {note.strip()}, about {duration(left)} left")

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class _ToDisplay(logging.Handler):
    """Passes what the library logs on to a display."""

    def __init__(self, display: Display, level: int) -> None:
        super().__init__(level)
        self.display = display

    def emit(self, record: logging.LogRecord) -> None:
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        self.display.line(mark + record.getMessage())


@contextmanager
def logging_to(display: Display, level: int = logging.INFO) -> Iterator[None]:
    """Shows the library's log, from a level on, on a display while the block runs."""
    library, handler = logging.getLogger("overtone"), _ToDisplay(display, level)
    before = library.level, library.propagate
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    library.propagate = False  # other libraries give the root logger a handler, and lines would come twice
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(before[0])
        library.propagate = before[1]
