"""Every error edgeloop raises on purpose, and the exit code each one becomes.

A message says what was found, what was expected and what to do, with the user's own values in it.
Library code raises; only `edgeloop.cli` turns an error into an exit code. The tree:

    EdgeloopError         1   a bug, when nothing narrower fits
    |- OptionsError       2   options that contradict each other or do not exist
    |- MissingExtra       3   a package, runtime or browser that is not installed
    |- ModelError         4   a model or bundle refused: unreadable, hostile, unsupported, over a limit
    |- ParityError        5   a variant does not compute what its source computes
    |- BudgetError        6   a budget is not met: of accuracy, or of time
    |- TargetError        7   the target cannot run this model
    |- DeviceError        8   a device or server failed or cannot be reached; a port is in use
    |- IntegrityError     9   a hash or a signature does not hold
    |- DataError         10   data refused
    `- WriteError        11   cannot write: disk or permission

A device imports this file alone, so it is Python 3.9 and needs nothing but the standard library.
"""

from __future__ import annotations

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


class EdgeloopError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with."""

    exit_code = 1


class OptionsError(EdgeloopError):
    exit_code = 2


class MissingExtra(EdgeloopError):
    exit_code = 3


class ModelError(EdgeloopError):
    exit_code = 4


class ParityError(EdgeloopError):
    exit_code = 5


class BudgetError(EdgeloopError):
    exit_code = 6


class TargetError(EdgeloopError):
    exit_code = 7


class DeviceError(EdgeloopError):
    exit_code = 8


class IntegrityError(EdgeloopError):
    exit_code = 9


class DataError(EdgeloopError):
    exit_code = 10


class WriteError(EdgeloopError):
    exit_code = 11
