"""`python -m benchmarks.mutants`: single changes of the package, each against the fast tests that run its line.

Works in a clone of the last commit. One process loads the libraries and forks for each mutant, so that a mutant costs
its tests and hardly more.
"""

import argparse
import ast
import contextlib
import copy
import gc
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, final

import pytest

HERE = Path(__file__).parents[1]
PACKAGE = "mnist_exp"
LIBRARIES = "torch torchvision hydra mlflow.tracking optuna pandas matplotlib.pyplot sqlalchemy.orm rich.live filelock"
LIBRARIES += " xdist.plugin hypothesis.extra.numpy jaxtyping trio anyio importlib_metadata"
FEWEST = 15  # mutants of a folder
SPEECH = re.compile(r"_?log(ger)?\.|print\(|warnings\.")  # what is said, not done
SWAPPED: dict[type[ast.AST], Any] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}


@final
@dataclass(frozen=True)
class Mutant:
    """One changed piece of source."""

    file: str
    """Relative to the repository."""
    line: int
    column: int
    old: str
    new: str
    source: str = field(repr=False)
    """The whole file, changed."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}  {_short(self.old)} → {_short(self.new)}"

    @property
    def folder(self) -> str:
        """The folder of the package; the commands, at its top, count as one."""
        inside = Path(self.file).parts[1:-1]
        return inside[0] if inside else "commands"


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= 70 else f"{line[:69]}…"


def variants(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """A piece of *node*, and what stands in its place."""
    match node:
        case ast.Compare(ops=[operator]) | ast.BoolOp(op=operator) | ast.BinOp(op=operator) if (
            type(operator) in SWAPPED
        ):
            changed: Any = copy.deepcopy(node)
            other = SWAPPED[type(operator)]()
            if isinstance(changed, ast.Compare):
                changed.ops = [other]
            else:
                changed.op = other
            yield node, ast.unparse(changed)
        case ast.UnaryOp(op=ast.Not()):
            yield node, ast.unparse(node.operand)
        case ast.If() | ast.IfExp() | ast.While():
            plain = not isinstance(node.test, ast.UnaryOp | ast.Compare | ast.BoolOp | ast.Constant)
            if plain and ast.unparse(node.test) != "TYPE_CHECKING":
                yield node.test, f"not ({ast.unparse(node.test)})"
        case ast.Constant(value=bool()):
            yield node, str(not node.value)
        case ast.Constant(value=int() | float() as number):
            yield node, repr(number + 1)
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield value, "None"
        case ast.Expr(value=ast.Call()) if not SPEECH.match(ast.unparse(node)):
            yield node, "pass"
        case ast.Continue():
            yield node, "break"
        case ast.Break():
            yield node, "continue"


def reached(node: ast.AST) -> Iterator[ast.AST]:
    """*node* and what is below it, without types, assertions and f-strings, whose parts have no true columns."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.Assert | ast.JoinedStr):
                yield from reached(child)


def mutants(path: Path, root: Path) -> Iterator[Mutant]:
    """Every mutant of the file at *path*."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in reached(ast.parse(source)):
        piece: Any
        for piece, new in variants(node):
            begin, end = (
                starts[piece.lineno - 1] + piece.col_offset,
                starts[piece.end_lineno - 1] + piece.end_col_offset,
            )
            changed = (source[:begin] + new.encode() + source[end:]).decode()
            place = (str(path.relative_to(root)), piece.lineno, piece.col_offset)
            yield Mutant(*place, source[begin:end].decode(), new, changed)


def sample(every: list[Mutant], size: int, seed: int) -> list[Mutant]:
    """About *size* of them, in random order: from each folder by its number of mutants, and at least `FEWEST`."""
    draw, folders = random.Random(seed), defaultdict(list)
    for mutant in every:
        folders[mutant.folder].append(mutant)
    chosen = []
    for _, inside in sorted(folders.items()):
        share = max(FEWEST, round(size * len(inside) / len(every)))
        chosen += draw.sample(inside, min(share, len(inside)))
    draw.shuffle(chosen)
    return chosen


class Watch:
    """A plugin of pytest: notes which test runs which line, how long each takes, and which fail."""

    def __init__(self, begin: Callable[[str], object]) -> None:
        self.begin = begin
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.seconds[nodeid] = 0
        self.begin(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)


@final
class Few:
    """A plugin of pytest: runs those that are not *known*, then the named ones in their order."""

    def __init__(self, names: list[str], known: set[str]) -> None:
        self.order, self.known = {name: number for number, name in enumerate(names)}, known

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.order or item.nodeid not in self.known]
        items[:] = sorted(chosen, key=lambda item: self.order.get(item.nodeid, -1))


@final
@dataclass
class Suite:
    """The fast tests in a clone, and what each of them runs."""

    clone: Path
    notes: Path
    """Where the rest is kept for the next call."""
    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """Tests by file and line."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each test takes, those left out that fail unchanged."""
    known: set[str] = field(default_factory=set)
    """All tests of that time."""

    def options(self) -> list[str]:
        """Those of pytest for every call."""
        loaded = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins, such as Hydra's, with the libraries
        return ["-q", "-n", "0", "-p", "no:cacheprovider", "--basetemp", str(self.clone.with_name("tmp")), *loaded]

    def fork(self, work: Callable[[], int], limit: float) -> int | None:
        """The exit code of *work* in a process of its own, in the clone; None after *limit* seconds."""
        if not (child := os.fork()):
            os.setsid()
            output = os.open(self.clone.with_name("output"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(self.clone)
            os.environ["PYTHONPATH"] = str(self.clone)
            sys.path[:] = [str(self.clone), *(path for path in sys.path if path not in ("", str(HERE)))]
            for name in [name for name in sys.modules if name.split(".")[0] == __package__]:
                del sys.modules[name]
            sys.modules["__main__"] = ModuleType("__main__")  # multiprocessing would import this one in its children
            code = 3
            try:
                code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        end = time.monotonic() + limit
        try:
            while True:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                if time.monotonic() > end:
                    return None
                time.sleep(0.05)
        finally:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
            else:
                if not done:
                    os.waitpid(child, 0)

    def watch(self) -> None:
        """Runs every fast test once, and notes what it runs."""

        def work() -> int:
            import coverage

            watched = coverage.Coverage(data_file=None, source=[PACKAGE], config_file=False)
            watch = Watch(watched.switch_context)
            watched.start()
            code = pytest.main(self.options(), plugins=[watch])
            watched.stop()
            data, lines = watched.get_data(), {}
            for file in data.measured_files():
                contexts = data.contexts_by_lineno(file)
                lines[os.path.relpath(file)] = {line: [t for t in tests if t] for line, tests in contexts.items()}
            found = {"lines": lines, "seconds": watch.seconds, "failed": watch.failed}
            self.notes.write_text(json.dumps(found), encoding="utf-8")
            return int(code)

        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.fork(lambda: int(pytest.main([*self.options(), "--collect-only"])), 7200)  # compiles everything, once
        if not self.notes.exists() and self.fork(work, 7200) != 0 and not self.notes.exists():
            raise RuntimeError(f"The tests did not run:\n{self.clone.with_name('output').read_text()}")
        found = json.loads(self.notes.read_text(encoding="utf-8"))
        self.lines, self.known, failed = found["lines"], set(found["seconds"]), set(found["failed"])
        self.seconds = {test: seconds for test, seconds in found["seconds"].items() if test not in failed}

    def tests(self, mutant: Mutant, budget: float) -> list[str]:
        """Those that may notice: they run the line, or, of the same folder, might in another process.

        The folder's own come first, quick ones before slow ones, and altogether they take about *budget* seconds.
        """
        lines = self.lines.get(mutant.file, {})
        running = set(lines.get(str(mutant.line), ())) or {test for tests in lines.values() for test in tests}
        own = f"tests/{mutant.folder}/"
        candidates = [test for test in self.seconds if test in running or test.startswith(own)]
        candidates.sort(key=lambda test: (test not in running, not test.startswith(own), self.seconds[test]))
        chosen, used = [], 0.0
        for test in candidates:
            if used + self.seconds[test] < budget:
                used += self.seconds[test]
                chosen.append(test)
        return chosen

    def notices(self, mutant: Mutant, budget: float) -> bool:
        """Whether a test fails with *mutant* in place of its file, or takes far too long."""
        chosen = self.tests(mutant, budget)
        if not chosen:
            return False
        files = {test.partition("::")[0] for test in chosen} | {f"tests/{mutant.folder}"}  # it may have new tests
        arguments = [*self.options(), "-x", *sorted(files)]
        path = self.clone / mutant.file
        before, times = path.read_bytes(), path.stat()
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        path.write_text(mutant.source, encoding="utf-8")
        try:
            limit = 60 + 5 * sum(self.seconds[test] for test in chosen)
            return self.fork(lambda: int(pytest.main(arguments, plugins=[Few(chosen, self.known)])), limit) != 0
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def table(outcomes: dict[Mutant, bool]) -> str:
    """The share that is killed, by folder."""
    rows = ["| folder | mutants | killed | share |", "| --- | ---: | ---: | ---: |"]
    folders = sorted({mutant.folder for mutant in outcomes})
    for name, inside in [*((folder, {folder}) for folder in folders), ("**all**", set(folders))]:
        killed = [outcome for mutant, outcome in outcomes.items() if mutant.folder in inside]
        rows.append(f"| {name} | {len(killed)} | {sum(killed)} | {sum(killed) / len(killed):.0%} |")
    return "\n".join(rows)


def main() -> None:
    """Draws the mutants, tries each, and prints those that no test notices, and the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=400, help="mutants, spread over the folders by their size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="only this folder of the package; commands: the modules at its top")
    parser.add_argument("--seconds", type=float, default=60, help="of tests for each mutant, at most")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--notes", type=Path, help="a file for what each test runs: read, or made if it is not there")
    parser.add_argument("--again", type=Path, help="only the survivors that an earlier output names")
    options = parser.parse_args()
    files = sorted((HERE / PACKAGE).rglob("*.py"))
    every = [mutant for path in files for mutant in mutants(path, HERE)]
    chosen = [m for m in sample(every, options.sample, options.seed) if options.folder in (None, m.folder)]
    if options.again:
        survived = set(options.again.read_text(encoding="utf-8").splitlines())
        chosen = [mutant for mutant in every if str(mutant) in survived]
    for library in LIBRARIES.split():
        with contextlib.suppress(ImportError):
            __import__(library)
    gc.freeze()  # shared with the forks
    end = time.monotonic() + 60 * options.minutes
    outcomes: dict[Mutant, bool] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        clone = Path(scratch) / "clone"
        suite = Suite(clone, (options.notes or Path(scratch) / "notes.json").absolute())
        subprocess.run(["git", "clone", "--quiet", str(HERE), str(suite.clone)], check=True)
        suite.watch()
        print(f"{len(chosen)} of {len(every)} mutants, {len(suite.seconds)} tests; survivors:", flush=True)  # noqa: T201
        for mutant in itertools.takewhile(lambda _: time.monotonic() < end, chosen):
            outcomes[mutant] = suite.notices(mutant, options.seconds)
            if not outcomes[mutant]:
                print(mutant, flush=True)  # noqa: T201
    print(f"\n{table(outcomes)}")  # noqa: T201


if __name__ == "__main__":
    main()
