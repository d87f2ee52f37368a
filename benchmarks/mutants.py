"""`python -m benchmarks.mutants`: single changes of the package, each against the quick tests that run its line.

Works in a clone of the last commit. One process loads package and tests, and forks for each mutant, whose functions get
their changed code there; so a mutant costs the tests that it meets, and hardly more.
"""

import argparse
import ast
import contextlib
import copy
import functools
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
from types import CodeType, FunctionType, ModuleType
from typing import Any, final

import pytest

HERE = Path(__file__).parents[1]
PACKAGE = "mnist_exp"
CACHED = type(functools.cache(len))
(QUICK,) = re.findall(r'"not integration and (.*)",', (HERE / "pyproject.toml").read_text(encoding="utf-8"))
OPTIONS = ["-q", "-n", "0", "-p", "no:cacheprovider", "--basetemp=../tmp", "-m", QUICK]
FEWEST = 15  # mutants of a folder
SERVICES = ("ray.py", "slurm.py")  # tests/services/ has them run, not the fast tests
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


@final
class Suite:
    """A plugin of pytest that, in place of its loop over all tests, has each mutant meet those that may notice it.

    Args:
        notes: What each test runs: read, or found out and written.
        trial: What to do when the tests are loaded.
    """

    def __init__(self, notes: Path, trial: Callable[["Suite"], None]) -> None:
        self.notes, self.trial = notes, trial
        self.items: dict[str, pytest.Item] = {}
        self.lines: dict[str, dict[str, list[str]]] = {}
        """Tests by file and line."""
        self.seconds: dict[str, float] = {}
        """How long each test takes, those left out that fail unchanged."""
        self.failed: list[str] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        if not self.notes.exists():
            self.fork(self.watch, 7200)
        found = json.loads(self.notes.read_text(encoding="utf-8"))
        new = {name: 0.0 for name in self.items if name not in found["seconds"]}  # they come first
        self.lines, self.seconds = found["lines"], found["seconds"] | new
        for name in found["failed"]:
            del self.seconds[name]
        gc.freeze()  # shared with the forks
        self.trial(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def run(self, names: list[str]) -> int:
        """1 as soon as one of the tests *names* fails, else 0."""
        items = [self.items[name] for name in names]
        for item, following in itertools.zip_longest(items, items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return 1
        return 0

    def watch(self) -> int:
        """Runs every test once, and notes what it runs, how long it takes, and whether it fails."""
        import coverage

        watched = coverage.Coverage(data_file=None, source=[PACKAGE], config_file=False)
        watched.start()
        for name in self.items:
            watched.switch_context(name)
            self.run([name])
        watched.stop()
        data, lines = watched.get_data(), {}
        for file in data.measured_files():
            contexts = data.contexts_by_lineno(file)
            lines[os.path.relpath(file)] = {line: [t for t in tests if t] for line, tests in contexts.items()}
        found = {"lines": lines, "seconds": self.seconds, "failed": sorted(set(self.failed))}
        self.notes.write_text(json.dumps(found), encoding="utf-8")
        return 0

    def fork(self, work: Callable[[], int], limit: float) -> int | None:
        """The exit code of *work* in a process of its own; None after *limit* seconds."""
        if sys.platform == "win32":
            raise NotImplementedError
        if not (child := os.fork()):
            os.setsid()
            output = os.open("../output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = 3
            try:
                code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        end, done, status = time.monotonic() + limit, 0, 0
        while not done and time.monotonic() < end:
            time.sleep(0.02)
            done, status = os.waitpid(child, os.WNOHANG)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if not done:
            os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) if done else None

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

    def notices(self, mutant: Mutant, budget: float, afresh: bool = False) -> bool:
        """Whether a test fails with *mutant* in place of its file, or takes far too long.

        Args:
            afresh: Loads the package anew, as is necessary for what runs at import.
        """
        chosen = self.tests(mutant, budget)
        path = Path(mutant.file)
        before, times = path.read_bytes(), path.stat()
        limit = 60 + 5 * sum(self.seconds[test] for test in chosen)

        def work() -> int:
            if not afresh and swap(before.decode(), mutant.source):
                return self.run(chosen)
            return subprocess.call([sys.executable, "-m", "pytest", "-x", *OPTIONS, *chosen])

        path.write_text(mutant.source, encoding="utf-8")  # for other processes
        try:
            return bool(chosen) and self.fork(work, limit) != 0
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def codes(code: CodeType) -> list[CodeType]:
    """*code* and all code objects in it, in order."""
    return [code, *(inner for each in code.co_consts if isinstance(each, CodeType) for inner in codes(each))]


def swap(old: str, new: str) -> int:
    """Gives the loaded functions of the source *old* their code in *new*; returns how many have other code then."""
    was, now = codes(compile(old, "", "exec")), codes(compile(new, "", "exec"))
    if [code.co_qualname for code in was] != [code.co_qualname for code in now]:
        return 0
    changed = {one: other for one, other in zip(was, now, strict=True) if one != other}
    gc.unfreeze()  # what is frozen is not listed
    functions = [each for each in gc.get_objects() if type(each) is FunctionType and each.__code__ in changed]
    for function in functions:
        function.__code__ = changed[function.__code__]
    for each in gc.get_objects():
        if type(each) is CACHED and str(each.__module__).startswith(PACKAGE):
            each.cache_clear()
    return len(functions)


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
    files = [path for path in sorted((HERE / PACKAGE).rglob("*.py")) if path.name not in SERVICES]
    every = [mutant for path in files for mutant in mutants(path, HERE)]
    chosen = [m for m in sample(every, options.sample, options.seed) if options.folder in (None, m.folder)]
    if options.again:
        survived = set(options.again.read_text(encoding="utf-8").splitlines())
        chosen = [mutant for mutant in every if str(mutant) in survived]
    outcomes: dict[Mutant, bool] = {}
    end = time.monotonic() + 60 * options.minutes

    def trial(suite: Suite) -> None:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # no other process keeps a mutant
        print(f"{len(chosen)} of {len(every)} mutants, {len(suite.seconds)} tests; survivors:", flush=True)  # noqa: T201
        for mutant in itertools.takewhile(lambda _: time.monotonic() < end, chosen):
            outcomes[mutant] = suite.notices(mutant, options.seconds, afresh=bool(options.again))
            if not outcomes[mutant]:
                print(mutant, flush=True)  # noqa: T201

    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        clone, notes = Path(scratch, "clone"), (options.notes or Path(scratch, "notes.json")).absolute()
        subprocess.run(["git", "clone", "--quiet", str(HERE), str(clone)], check=True)
        os.chdir(clone)
        os.environ["PYTHONPATH"] = str(clone)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process would compile everything
        sys.dont_write_bytecode = False
        sys.path[:] = [str(clone), *(path for path in sys.path if path not in ("", str(HERE)))]
        for name in [name for name in sys.modules if name.split(".")[0] == __package__]:
            del sys.modules[name]
        sys.modules["__main__"] = ModuleType("__main__")  # multiprocessing would import this one in its children
        pytest.main([*OPTIONS, "--capture=no"], plugins=[Suite(notes, trial)])
    print(f"\n{table(outcomes)}")  # noqa: T201


if __name__ == "__main__":
    main()
