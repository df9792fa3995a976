"""What a user can get wrong, each kind with the exit code that the command line promises.

A message says what was wrong and where (the file or the field), what came, what was expected, and
what to do. The command line prints it without a traceback.
"""

from __future__ import annotations


class OvertoneError(Exception):
    """Base of every error that is the user's to mend; `exit_code` is the command's."""

    exit_code = 1


class RecipeError(OvertoneError):
    """A recipe, an option or an argument is wrong."""

    exit_code = 2


class DataError(OvertoneError):
    """A data set or one of its samples cannot be used."""

    exit_code = 3


class RunError(OvertoneError):
    """A run folder, a checkpoint or another artifact is missing, damaged, locked or foreign."""

    exit_code = 4


class DiskError(OvertoneError):
    """The disk is full or cannot be written."""

    exit_code = 5


class NumericalError(OvertoneError):
    """A loss, a gradient or an embedding is not finite."""

    exit_code = 6


class ProcessError(OvertoneError):
    """One of the processes of a run was lost, or they did not find each other."""

    exit_code = 7
