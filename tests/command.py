"""What the command gives when a test runs it in its own process."""

from __future__ import annotations

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]
"""Takes arguments; gives the exit code, what was printed, and what was complained of."""
