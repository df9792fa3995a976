"""What ended a run, kept in its folder for programs: `error.json`."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overtone import artifacts
from overtone.errors import OvertoneError
from overtone.text import utf8

FILE = "error.json"


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Writes what the block raises into `error.json` of a folder, and removes that of an earlier failure.

    It holds `kind`, `exit_code` (of the command `overtone`), `message` and `traceback`.

    >>> import json, tempfile
    >>> from overtone.errors import DataError
    >>> home = Path(tempfile.mkdtemp())
    >>> with suppress(DataError), kept(home):
    ...     raise DataError("photos: no images")
    >>> failure = json.loads((home / FILE).read_text())
    >>> failure["kind"], failure["exit_code"], failure["message"]
    ('DataError', 3, 'photos: no images')
    """
    with artifacts.disk_errors(folder):
        (folder / FILE).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        failure = {
            "kind": type(error).__name__,
            "exit_code": error.exit_code if isinstance(error, OvertoneError) else 1,
            "message": utf8(str(error)),
            "traceback": utf8("".join(traceback.format_exception(error))),
        }
        with suppress(OvertoneError):  # a full disk has been complained of already
            artifacts.write_json(folder / FILE, failure)
        raise
