"""What can go wrong. A message says the rule and the value; `help` says the way out; each kind has its exit code."""

from typing import final


class ExperimentError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message, help)
        self.message = message
        self.help = help

    def __str__(self) -> str:
        return self.message


def first_line(error: BaseException) -> str:
    """What *error* says, in one line; its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@final
class ConfigError(ExperimentError, ValueError):
    """The composed config cannot describe a run. Nothing was started."""

    exit_code = 2


@final
class DataError(ExperimentError):
    """A data file is missing, short, or has the wrong checksum."""

    exit_code = 2


@final
class CheckpointError(ExperimentError):
    """A saved state is damaged, or does not fit this config."""

    exit_code = 2


@final
class BusyError(ExperimentError):
    """Another process holds the run or the sweep."""

    exit_code = 2


@final
class DivergedError(ExperimentError):
    """A lane's loss is not finite; its neighbours go on."""


@final
class SweepError(ExperimentError):
    """Some runs of a sweep failed; the others are finished."""


@final
class Interrupted(ExperimentError):
    """The user (Ctrl-C, 130) or the system (SIGTERM, 143) asked the run to stop."""

    def __init__(self, message: str, help: str = "", signal: int = 2) -> None:
        super().__init__(message, help)
        self.args = (message, help, signal)  # so that it survives pickling
        self.exit_code = 128 + signal
        self.signal = signal
