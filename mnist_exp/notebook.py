"""From Python, as in a notebook: train, sweep and load what was trained, and leave the process as it was."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_exp import errors, system
from mnist_exp.config import compose, new_folder, override
from mnist_exp.config.overrides import check_once, check_single, check_text, key_of, split
from mnist_exp.console import exits, terminal
from mnist_exp.disk import trust
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.disk.layout import RunFolder, is_sweep
from mnist_exp.errors import ConfigError, ExperimentError, Interrupted
from mnist_exp.results import names
from mnist_exp.run import one, resume

if TYPE_CHECKING:
    import pandas as pd

    from mnist_exp.models import Classifier
    from mnist_exp.run.session import Result


def train_from(overrides: Sequence[str] = (), root: str | Path = "outputs") -> "Result":
    """Trains what `python -m mnist_exp.train <overrides>` would, and returns how it ended.

        result = mnist_exp.train_from(["hidden=256", "epochs=3"])
        result.summary["final/val_accuracy"], result.folder

    Args:
        overrides: As typed on the command line. For several runs, call it several times, or see `sweep`.
        root: The run gets a new folder below `<root>/runs`.

    Raises:
        ExperimentError: see `session.run_many`; its note says the way out. Interrupting the kernel raises
            `Interrupted`: the finished epochs are saved, and `["resume=<folder>"]` continues.
    """
    with noted(), undisturbed():
        asked = compose(overrides)
        check_single(overrides, overrides)
        folder = Path(resume.run_folder(f"{root}/runs", asked.resume))
        folder.mkdir(parents=True, exist_ok=True)
        with terminal.log_to(RunFolder(folder).log):
            return one.train(asked, folder, list(overrides))


def sweep(overrides: Sequence[str] = (), root: str | Path = "outputs") -> "pd.DataFrame":
    """Runs the sweep that `python -m mnist_exp.train -m <overrides>` would, and returns one row for each run.

        runs = mnist_exp.sweep(["hidden=64,128", "lr=1e-3,3e-3"])
        runs.groupby("hidden")["final/val_accuracy"].mean()

    It runs in a process of its own, whose lines are printed here. Workers start from there, so a script needs no
    `if __name__ == "__main__"`, and threads and event loops here do not matter. If this process ends, the sweep stops.

    Args:
        overrides: As typed on the command line after -m.
        root: The sweep gets a new folder below `<root>/sweeps`.

    Returns:
        As `results.load`; empty where nothing was to run (`--dry-run`).

    Raises:
        ExperimentError: as the command's exit codes: a `ConfigError` (2) before anything starts, a `SweepError` (1)
            where runs failed, whose note says how to load the others. Interrupting the kernel stops the sweep as
            Ctrl-C does, and raises `Interrupted`.
    """
    from mnist_exp import results

    with noted():
        check_text(overrides)
        check_once(overrides)
        typed, folder = _placed(overrides, Path(root))
        if error := _run(typed):
            if is_sweep(folder):
                error.add_note(f"What its runs came to: mnist_exp.results.load({str(folder)!r})")
            raise error
        if not is_sweep(folder):
            import pandas as pd

            return pd.DataFrame()
        return results.load(folder)


def load_model(run: str | Path = "last", root: str | Path = "outputs") -> "Classifier":
    """The trained network of *run*, on the CPU and in eval mode: pixels in, probabilities out.

        network = mnist_exp.load_model("best")
        network(torch.zeros(1, 1, 28, 28))      # (1, 10), of a black picture of MNIST's size

    It takes (n, channels, height, width), 0 for black to 255 for white: mean and scale are part of it. What was trained
    is its `network`, which takes standardised pixels and gives logits.

    Args:
        run: `last`, `best`, the id or the folder of a run or sweep (of which it is the best run), or an MLflow run id;
            see `results.names.one`.
        root: The folder that holds `runs/` and `sweeps/`.

    Raises:
        ConfigError: there is no such run; or it comes from elsewhere and would call code that no file of conf/ names,
            see `disk.trust`.
        CheckpointError: it has no weights yet, or they are damaged or another network's.
    """
    with noted(), undisturbed():
        from mnist_exp.run import export  # torch

        folder = names.one(run, Path(root))
        return export.restore(trust.load(folder), folder)


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Gives an error its way out as a note, which tracebacks show."""
    try:
        yield
    except ExperimentError as error:
        if error.help:
            error.add_note(f"help: {error.help}")
        raise


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Gives back what training sets in the whole process: torch's random numbers, threads and arithmetic, variables.

    What importing sets stays, as libraries read it once: `GOMP_SPINCOUNT`, and of MLflow what `config.stores` lists.
    """
    import torch

    environment, threads = dict(os.environ), torch.get_num_threads()
    product, deterministic = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    warns, cudnn = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn
    convolutions = cudnn.allow_tf32, cudnn.deterministic
    flushed = not (torch.tensor([1e-39]) * 1).count_nonzero()  # torch can set it, but not say it
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    gpu = torch.cuda.current_device() if gpus else None
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)
        torch.set_float32_matmul_precision(product)
        cudnn.allow_tf32, cudnn.deterministic = convolutions
        if deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports torch's compiler
            torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        if gpu is not None:
            torch.cuda.set_device(gpu)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _placed(overrides: Sequence[str], root: Path) -> tuple[list[str], Path]:
    """*overrides* with the folder of the sweep, and that folder."""
    values = {key_of(each): split(each)[2] for each in overrides}
    if where := values.get("hydra.sweep.dir"):
        return list(overrides), Path(where.strip("'\""))
    if (name := values.get("resume", "null").strip("'\"")) != "null":
        folder = names.resolve(name, root).home
        return [*(o for o in overrides if key_of(o) != "resume"), override("resume", str(folder))], folder
    folder = Path(new_folder(f"{root}/sweeps"))
    return [*overrides, override("hydra.sweep.dir", str(folder))], folder


def _run(typed: Sequence[str]) -> ExperimentError | None:
    """Runs `main` in a process of its own, prints what it prints, and returns its error."""
    with tempfile.TemporaryDirectory() as scratch:
        error_file = Path(scratch, "error.json")
        process = system.start_module(  # Ctrl-C comes here, and is passed on: its input takes the numbers of signals
            "notebook",
            *(str(error_file), *typed),
            environment={"PYTHONIOENCODING": "utf-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        with process:
            code = _relay(process)
        if code == 0:
            return None
        if error_file.exists():
            kind, *about = read_json(error_file)
            error = getattr(errors, kind)(*about)
            assert isinstance(error, ExperimentError)
            return error
        if code in (130, 143):
            return Interrupted("The sweep was stopped.", signal=code - 128)
        if code == 2:
            return ConfigError("The sweep was refused; the lines above say why.")
        said = f"The process of the sweep ended with {code}, without a word."
        return ExperimentError(said, "What is finished can be resumed.")


def _relay(process: "subprocess.Popen[str]") -> int:
    """Prints what *process* prints until it ends, and passes on every Ctrl-C; returns its exit code."""
    assert process.stdin
    assert process.stdout
    while True:
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
            return process.wait()
        except KeyboardInterrupt:
            process.stdin.write(chr(signal.SIGINT))  # Windows sends no process that signal
            process.stdin.flush()


def main() -> None:
    """The process of `sweep`: the command, but that its error goes into the file that the first argument names."""
    from mnist_exp import train

    error_file, *typed = sys.argv[1:]

    def tell(error: ExperimentError) -> None:
        write_json(Path(error_file), [type(error).__name__, *error.args])

    def follow() -> None:
        while number := os.read(0, 1):  # not sys.stdin, whose lock Python wants when it ends
            system.interrupt(number[0])
        system.interrupt(signal.SIGTERM)

    exits.tell = tell
    sys.argv[1:] = ["-m", *typed]
    threading.Thread(target=follow, daemon=True).start()
    train.cli()


if __name__ == "__main__":
    main()
