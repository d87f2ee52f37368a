"""What every command shares: errors become sentences, sentences become exit codes.

Exit codes: 0 all finished · 1 a run failed · 2 bad config, usage or environment · 130 Ctrl-C · 143 SIGTERM.
HYDRA_FULL_ERROR=1 shows the whole traceback instead.
"""

import atexit
import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from mnist_exp import system
from mnist_exp.config.explain import explained
from mnist_exp.console import terminal
from mnist_exp.errors import ConfigError, ExperimentError

tell: Callable[[ExperimentError], object] = terminal.complain
"""What `explain` does with an error; the process of a sweep from Python hands it to that one."""


def command(main: Callable[[Sequence[str]], object], prints_result: bool = True) -> Callable[[], None]:
    """The console script of *main*, which takes the arguments; see `run`."""
    return lambda: sys.exit(run(lambda: main(sys.argv[1:]), prints_result))


def run(main: Callable[[], object], prints_result: bool = True) -> int:
    """Runs a command's *main* and returns its exit code.

    Args:
        prints_result: Whether it fails if its output is lost, as on a full disk. Training does not; and a reader that
            has read enough (`| head`) fails no command.
    """
    with terminal.safe_streams() as output:
        code = _run(main)
        output.flush()
        failure = output.failure if prints_result and code == 0 else None
        if failure and not system.is_reader_gone(failure):
            reason = f"Standard output cannot be written: {failure.strerror}."
            code = explain(ConfigError(reason, "Choose another place."))
    return code


def _run(main: Callable[[], object]) -> int:
    spare_garbage_collection()
    if (here := str(Path.cwd())) not in sys.path:  # as `python -m` has it: a user's model or search lies there
        sys.path.append(here)
    full = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and leaving with 1
    try:
        main()
    except KeyboardInterrupt:
        terminal.errors.print("Interrupted.")
        return 130
    except SystemExit as stop:
        if full and stop.__context__:  # an error that main has explained
            traceback.print_exception(stop.__context__)
        raise
    except Exception as error:
        if full:
            traceback.print_exc()
        return explain(error)
    finally:
        if not full:
            del os.environ["HYDRA_FULL_ERROR"]
    return 0


def spare_garbage_collection() -> None:
    """Makes Python collect garbage less often, and not at exit.

    Among the objects of torch and MLflow that takes a fifth of the time of their import, and most of a second at exit.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def explain(error: Exception) -> int:
    """Prints *error* as a sentence and a way out; returns the exit code that goes with it."""
    error = explained(error, sys.argv[1:])
    if isinstance(error, OSError) and error.filename:  # before training; the session explains later ones
        where = error.filename.decode() if isinstance(error.filename, bytes) else error.filename
        error = ConfigError(f"{where} cannot be used: {error.strerror}.", "Choose another folder, or put that right.")
    if not isinstance(error, ExperimentError):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} (in {frame.name}, {frame.filename}:{frame.lineno})"
        error = ExperimentError(text, "HYDRA_FULL_ERROR=1 before the command shows the whole traceback.")
    tell(error)
    return error.exit_code
