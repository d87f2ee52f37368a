"""What every command shares: errors become sentences, sentences become exit codes.

Exit codes: 0 all finished · 1 a run failed · 2 bad config, usage or environment · 130 Ctrl-C · 143 SIGTERM.
HYDRA_FULL_ERROR=1 shows the whole traceback instead.
"""

import atexit
import difflib
import errno
import gc
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config
from mnist_exp.console import terminal
from mnist_exp.errors import ConfigError, ExperimentError, first_line


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
        if failure and failure.errno != errno.EPIPE:
            code = explain(
                ConfigError(f"Standard output cannot be written: {failure.strerror}.", "Choose another place.")
            )
    return code


def _run(main: Callable[[], object]) -> int:
    spare_garbage_collection()
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
    if isinstance(error, (HydraException, OmegaConfBaseException)) or is_bad_choice(error):
        error = translate(error, sys.argv[1:])
    if isinstance(error, OSError) and error.filename:  # before training; the session explains later ones
        where = error.filename.decode() if isinstance(error.filename, bytes) else error.filename
        error = ConfigError(f"{where} cannot be used: {error.strerror}.", "Choose another folder, or put that right.")
    if not isinstance(error, ExperimentError):
        text = f"{type(error).__name__}: {error}"
        where = traceback.extract_tb(error.__traceback__)[-1]
        error = ExperimentError(
            f"{text} (in {where.name}, {where.filename}:{where.lineno})",
            "HYDRA_FULL_ERROR=1 before the command shows the whole traceback.",
        )
    terminal.complain(error)
    return error.exit_code


def is_bad_choice(error: Exception) -> bool:
    """Whether Hydra stumbled over the option of a group, such as experiment=null, without an error of its own."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error) in (ValueError, TypeError) and any(Path(f.filename).name == "defaults_list.py" for f in frames)


def translate(error: Exception, typed: list[str]) -> ConfigError:
    """What Hydra or OmegaConf says about an override, in the user's terms."""
    text = str(error)
    chain = [text]
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, ConfigError):  # ours, raised inside a resolver
            return cause
        chain.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    everything = "\n".join(chain)
    if found := re.search(r"Could not override '([^']+)'", text):
        return config.unknown_key(found[1], _override(found[1], typed))
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = found[1].partition("=")
        return ConfigError(
            f"'{found[1]}' names several values for one run.",
            f"Add -m to sweep over them, or write {key}=[{value}] for a list.",
        )
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"An override cannot be read: {first_line(error)}",
            "Put special characters into quotes twice: 'name=\"what I mean\"'.",
        )
    if key := _full_key(everything) or _merged_key(text):
        about = next((said for said in chain if "full_key:" in said), text)
        return _wrong_value(key, everything, reason=about.splitlines()[0])
    if is_bad_choice(error):
        return ConfigError(
            "A group takes the name of one of its options, not null, a number or a list.",
            "Drop it, or see the options: python -m mnist_exp.train --help",
        )
    if "Could not find 'hydra/launcher/submitit_slurm'" in text:
        return extra_missing("slurm")
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = re.search(r"Available options in '[^']+':\n((?:\t.*\n?)+)", text)
        names = [n.strip() for n in options[1].splitlines()] if options else []
        near = difflib.get_close_matches(found[2], names, n=1)
        guess = f"Did you mean '{found[1]}={near[0]}'? " if near else ""
        return ConfigError(f"There is no {found[1]} called '{found[2]}'.", f"{guess}There are: {', '.join(names)}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError(" ".join(lines[:2]) or type(error).__name__, "See python -m mnist_exp.train --help")


def extra_missing(cluster: str) -> ConfigError:
    """The sentence for `cluster=…` without the packages of its extra, which has the same name."""
    return ConfigError(
        f"cluster={cluster} needs packages that are not installed.", f'Install them: pip install -e ".[{cluster}]"'
    )


def _wrong_value(key: str, said: str, reason: str) -> ConfigError:
    """What OmegaConf *said* about the value of *key*; *reason* is its first line."""
    if found := re.search(r"Value '?(.*?)'? (?:of type '\w+' could not be converted to|is not a valid) (\w+)", said):
        kinds = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
        return ConfigError(f"{key} must be {kinds.get(found[2], found[2])}, but got {found[1]!r}.", _rule(key))
    if found := re.search(r"Invalid value '(.*?)', expected one of \[(.*?)\]", said):
        return ConfigError(f"{key} must be one of {found[2]}, but got {found[1]!r}.")
    if "is not Optional" in said:
        return ConfigError(f"{key} must have a value, but got null.", _rule(key))
    if "does not support deletion" in said:
        return config.deleted_key(key)
    return ConfigError(f"{key}: {reason}.", _rule(key))


def _override(key: str, typed: list[str]) -> str:
    """The argument that names *key*, as it was typed."""
    return next((a for a in typed if a.lstrip("+~").split("=")[0] == key), "")


def _full_key(text: str) -> str:
    found = re.search(r"full_key: (\S+)", text)
    return found[1] if found else ""


def _merged_key(text: str) -> str:
    found = re.search(r"override (?:\+\+?)?([^\s=]+)=", text)
    return found[1] if found else ""


def _rule(key: str) -> str:
    """What `--help` says about *key*."""
    for name, _, meta in config.settings():
        if name == key:
            return f"{key}: {meta['help']}" + (f" ({meta['range']})" if meta["range"] else "")
    return ""
