"""Stopping on request: a signal only sets a flag, the step in hand is finished and saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from overtone.errors import OvertoneError

TOGETHER = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_received: list[int] = []
_since = 0.0


class Stopped(OvertoneError):
    """A signal asked the run to stop; everything up to the step in hand is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} after saving; continue with `overtone resume`."
        )
        self.exit_code = 128 + number


def received() -> int:
    """The number of the signal that came since the outermost `catching` began; 0 where none has."""
    return _received[0] if _received else 0


def stop(number: int) -> None:
    """Raises `Stopped` for a signal of this process or of another; for 0 it does nothing."""
    if number:
        raise Stopped(number)


def raise_if_requested() -> None:
    """Raises `Stopped` when a signal has come to this process."""
    stop(received())


@contextmanager
def catching() -> Iterator[None]:
    """Notes SIGINT, SIGTERM and SIGUSR1 instead of dying of them; another, later, ends the process at once.

    Those within `TOGETHER` seconds are taken as one: a scheduler signals `torchrun` and all processes below
    it, and `torchrun` passes its own on to them.

    Only the main thread can catch signals; elsewhere, and inside another such block, the block runs as it is.
    """
    nested = signal.getsignal(signal.SIGTERM) is _note
    if nested or threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {number: signal.signal(number, _note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def _note(number: int, _: FrameType | None) -> None:
    global _since
    if not _received:
        _since = time.monotonic()
        _received.append(number)
    elif time.monotonic() - _since > TOGETHER:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
