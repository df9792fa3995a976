"""How work tells the person who waits for it how far it is: three small displays of one shape."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


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

    def __init__(self, queue: Queue[Any], run: str) -> None:
        self.queue, self.run = queue, run

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        """Sends the state of a task."""
        self.queue.put(("advance", (f"{self.run} {task}".strip(), done, total, note)))

    def line(self, text: str) -> None:
        """Sends a line."""
        self.queue.put(("line", (f"{self.run}: {text}" if self.run else text,)))


class Bars:
    """Progress bars in a terminal; plain lines only where the output is not one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        """Moves the bar of a task; a finished one goes away."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, note=note)
        self._progress.update(self._tasks[task], completed=done, total=total, note=note)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(task))

    def line(self, text: str) -> None:
        """Prints a line above the bars."""
        self._progress.console.print(Text(text), soft_wrap=True)

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
    before = library.level
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(before)


@contextmanager
def relayed(queue: Queue[Any], display: Display) -> Iterator[None]:
    """Shows what `Remote` displays put into a queue while the block runs."""

    def relay() -> None:
        while (message := queue.get()) is not None:
            kind, arguments = message
            getattr(display, kind)(*arguments)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        queue.put(None)
        thread.join()
