"""The benchmarks run and report; tests do not assert speed."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("psutil")

from benchmarks import measure, measured, mutants, papers, race, soak, suite, table, thousand, time_to_accuracy
from mnist_exp.config import compose
from mnist_exp.disk import provenance
from mnist_exp.disk.journal import Journal
from mnist_exp.disk.layout import State
from mnist_exp.disk.ledger import Ledger
from mnist_exp.disk.plan import Plan


@pytest.mark.integration
def test_step_runs_and_reports(tmp_path: Path) -> None:
    result = suite.step(suite.Bench(tmp_path, quick=True))
    for case in result.cases:
        assert {"floor", "ours", "in-memory PyTorch", "ours: gradient"} <= case.costs.keys()
        assert all(cost.low > 0 for cost in case.costs.values())
        assert case.ratios.keys() == {"ours / floor", "ours / floor by torch.mm", "in-memory PyTorch / ours"}
    assert len(result.cases) == (2 if measure.cores() > 1 else 1) + torch.cuda.is_available()


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def contender(name: str, cost: float) -> measure.Contender:
        def run() -> float:
            turns.append(name)
            return cost * len(turns)

        return run

    case = measure.compare("x", {"a": contender("a", 2), "b": contender("b", 1)}, repeats=2, ratios=[("a", "b")])
    assert turns == ["a", "b"] * 3  # with one warm-up round
    assert case.costs["a"].values == [6, 10]
    assert case.ratios["a / b"].values == [6 / 4, 10 / 6]


def test_failed_command_shows_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no luck"):
        measure.command(["-c", "raise SystemExit('no luck')"], tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody inherits it")
def test_processor_time_has_that_of_processes_whose_parent_has_ended(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    starts = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])"
    assert measure.processor_seconds(["-c", starts], tmp_path, {}) >= 0.5


def test_readme_is_made_from_the_results() -> None:
    case = measure.Case("hidden=8", {"ours": measure.Spread([1.0, 3.0])}, {"a / b": measure.Spread([2.0, 2.0])})
    result = measure.Benchmark("step", "One step", "us", [case], ["a note"])
    text = table.render(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", [result.to_json()])
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| hidden=8 | ours | 2 | 1 | 3 | 2 |" in text
    assert "|  | a / b | 2 x | 2 x | 2 x | 2 |" in text
    assert "- a note" in text


def test_readme_has_the_markers() -> None:
    text = table.README.read_text(encoding="utf-8")
    assert 0 < text.index(table.BEGIN) < text.index(table.END)


def test_the_fastest_commands_compose_and_train_on_every_image() -> None:
    for typed in time_to_accuracy.FASTEST:
        assert compose(typed.split()).data.val_size == 0


def test_a_target_is_reached_at_the_first_epoch_that_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "runs" / "day" / "time"
    folder.mkdir(parents=True)
    journal = Journal(folder, [])
    for epoch, accuracy in enumerate((0.9, 0.981, 0.979), start=1):
        journal.append(journal.row(epoch, epoch, 1000 * epoch, {"test/accuracy": accuracy, "time/epoch": 1.0}))
    assert time_to_accuracy.reached(tmp_path, started_ms=500) == {0.97: 1.5, 0.98: 1.5}


def test_the_table_of_the_front_page_has_what_was_measured() -> None:
    case = measure.Case("epochs=10", {}, {"Lightning / ours": measure.Spread([15.0, 17.0, 16.0])})
    result = measure.Benchmark("train", "The whole command", "s", [case, measure.Case("other", {}, {})])
    errors = pd.DataFrame({"experiment": ["strong_cnn"] * 2, "seed": [1, 0], "error": [0.7, 0.5]})
    text = measured.render(f"before\n{measured.BEGIN}\nold\n{measured.END}\nafter\n", [result.to_json()], errors)
    assert "old" not in text
    assert text.endswith("\nafter\n")
    assert "| five pooled convolutions, test accuracy | 99.40 ± 0.14 % (n=2), 95 % interval of the mean " in text
    assert "against Lightning | 16 times faster | `python -m benchmarks train` |" in text
    assert "DataLoader" not in text, "a row without a measurement"
    slower = measure.Case("epochs=10", {}, {"Lightning / ours": measure.Spread([9.5])})
    elsewhere = measure.Benchmark("train", "The whole command", "s", [slower]).to_json()
    elsewhere["environment"] = {**measure.environment(), "cpu": "Another(R) Processor"}
    both = measured.render(f"{measured.BEGIN}\n{measured.END}", [result.to_json(), elsewhere], errors)
    assert "against Lightning | 9.5 to 16 times faster | `python -m benchmarks train` |" in both
    assert table.folder(elsewhere["environment"]).name == "another"


def test_processors_that_hide_their_number_are_distinguished() -> None:
    hidden = {"model name": "Intel(R) Xeon(R) Processor @ 2.50GHz", "cpu family": "6", "model": "85"}
    assert measure.processor(hidden) == "Intel(R) Xeon(R) Processor, family 6 model 85"
    assert measure.processor({"model name": "ARMv7 Processor rev 4 (v7l)"}) == "ARMv7 Processor rev 4 (v7l)"


def test_the_front_page_shows_the_newest_figures() -> None:
    """Skipped if there are new results, which are not committed yet."""
    if provenance._git("status", "--porcelain", "--", str(table.RESULTS), str(papers.ROWS)):
        pytest.skip("there are new results: python -m benchmarks table, and commit them")
    text = measured.README.read_text(encoding="utf-8")
    assert measured.render(text, table.kept(), pd.read_csv(papers.ROWS)) == text


def test_a_sweep_too_large_to_make_is_measured_by_its_report_and_against_another_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def report(points: int, tree: Path) -> dict[str, float]:
        return {thousand.ten_thousand.PAGE: points * (2 if tree.name == "then" else 1)}

    made = dict.fromkeys((thousand.MEMORY, thousand.FILES, thousand.AROUND), 1.0)
    monkeypatch.setattr(thousand, "copies", report)
    monkeypatch.setattr(thousand, "sweep", lambda points, tree: made | report(points, tree))
    trees = {"now": Path("now"), "then": Path("then")}
    cases = {points: thousand.measured(points, trees) for points in (10, 1001)}
    assert cases[1001].costs.keys() == {"leaderboard and page", "leaderboard and page, then"}
    assert cases[1001].ratios["leaderboard and page, now / then"].values == [0.5]
    drawn = {axes.get_title(): len(axes.lines[0].get_xdata()) for axes in thousand.draw(cases).figure.axes}
    assert drawn == {thousand.MEMORY: 1, thousand.FILES: 1, f"{thousand.AROUND}, s": 1, "leaderboard and page, s": 2}


def test_what_befalls_a_stopped_sweep_of_the_soak(tmp_path: Path) -> None:
    sweep = soak.Sweep(tmp_path / "sweeps" / "s0007", served=False, kind="search", typed=[])
    home = sweep.folder / "outputs" / "sweeps" / "day" / "s"
    home.mkdir(parents=True)
    (home / "sweep.json").touch()
    whole = "first\nsecond\n"
    (home / "optuna.journal").write_text(whole)
    wild = soak.Soak(tmp_path, seed=0)
    for sweep.starts in range(1, 20):
        wild.befall(sweep)
    assert wild.kills.keys() == {"moved project", "torn journal"}
    assert sweep.experiment == "s0007" != sweep.folder.name
    assert sweep.home
    assert whole.startswith((sweep.home / "optuna.journal").read_text())
    assert len((sweep.home / "optuna.journal").read_text()) < len(whole)


def test_what_has_never_occurred_in_the_soak_comes_first(tmp_path: Path) -> None:
    """A short one has every kind of fault."""
    wild = soak.Soak(tmp_path, seed=0)
    for _ in soak.DISTURBANCES:
        wild.kills[wild.draw("", *soak.DISTURBANCES)] += 1
    assert wild.kills == dict.fromkeys(soak.DISTURBANCES, 1)
    assert {wild.draw("", "worker SIGKILL") for _ in range(20)} == {"", "worker SIGKILL"}


def test_a_trial_that_repeats_another_has_its_result_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = soak.Sweep(tmp_path / "s0007", served=False, kind="search", typed=[], code=0)
    home = sweep.folder / "outputs" / "sweeps" / "day" / "time"
    for number in range(soak.TRIALS - 1):
        entry = Ledger(state=State.FINISHED, summary={"final/val_accuracy": 0.5})
        (home / str(number)).mkdir(parents=True)
        entry.write(home / str(number))
    last = soak.TRIALS - 1
    Plan(id="time", typed=[], keys=[], points=[["lr=1"]] * soak.TRIALS, repeats=[last]).write(home)
    state = SimpleNamespace(name="COMPLETE")
    trials = [
        SimpleNamespace(number=n, state=state, value=0.5, params={"lr": 1}, intermediate_values={})
        for n in range(soak.TRIALS)
    ]
    monkeypatch.setattr(soak.Sweep, "trials", lambda self: trials)
    wild = soak.Soak(tmp_path, seed=0)
    assert wild.check_search(sweep) == []
    trials[last].value = 0.6
    assert wild.check_search(sweep) == [f"#{last}: it repeats an earlier trial, and has a run or another result"]


@pytest.mark.parametrize("screen", ["closed", "full"])
def test_a_screen_of_the_soak_takes_nothing(screen: str, tmp_path: Path) -> None:
    code = "import os\nwhile True:\n    os.write(1, b'x')"
    (tmp_path / "writes.py").write_text(code)
    process = soak.Soak(tmp_path, seed=0).command(tmp_path, "writes", screen=screen)
    assert process.wait(60) != 0


def changes(source: str, folder: Path) -> set[str]:
    """What the mutants of *source* have in place of it."""
    path = folder / "mnist_exp" / "engine" / "one.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    made = list(mutants.mutants(path, folder))
    assert {mutant.folder for mutant in made} <= {"engine"}
    assert all(compile(mutant.source, "", "exec") and mutant.source != source for mutant in made)
    return {mutant.source for mutant in made}


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("x = 'é' < y\n", {"x = 'é' <= y\n"}),
        ("x = a and b\n", {"x = a or b\n"}),
        ("x = not a\n", {"x = a\n"}),
        ("x = True\n", {"x = False\n"}),
        ("x[2]\n", {"x[3]\n"}),
        ("def f():\n    return a + b\n", {"def f():\n    return None\n", "def f():\n    return a - b\n"}),
        ("if a:\n    f()\n", {"if not (a):\n    f()\n", "if a:\n    pass\n"}),
        ("def f(x: Literal[1] = y): ...\n", set()),
        ("assert a == b, f'{a + b}'\n'''Docs.'''\nlog.info(a)\n", set()),
    ],
)
def test_a_mutant_is_one_change_of_what_is_done(source: str, changed: set[str], tmp_path: Path) -> None:
    assert changes(source, tmp_path) == changed


def test_the_same_seed_draws_the_same_mutants_and_spares_no_folder(tmp_path: Path) -> None:
    every = [
        mutants.Mutant(f"mnist_exp/{folder}/x.py", line, 0, "1", "2", "")
        for folder, lines in (("engine", 200), ("disk", 30), ("charts", 5))
        for line in range(lines)
    ]
    drawn = mutants.sample(every, 60, seed=0)
    assert drawn == mutants.sample(every, 60, seed=0) != mutants.sample(every, 60, seed=1)
    by_folder = {folder: sum(mutant.folder == folder for mutant in drawn) for folder in ("engine", "disk", "charts")}
    assert by_folder == {"engine": 51, "disk": 15, "charts": 5}
    assert len(set(drawn)) == len(drawn)


def test_the_tests_of_a_mutant_are_the_folders_own_first_and_no_longer_than_wanted(tmp_path: Path) -> None:
    mutant = mutants.Mutant("mnist_exp/engine/x.py", 7, 0, "1", "2", "")
    seconds = {"tests/sweep/a": 1.0, "tests/engine/b": 3.0, "tests/engine/c": 2.0, "tests/engine/d": 0.1, "tests/e": 9}
    suite = mutants.Suite(tmp_path, lambda _: None)
    suite.seconds = seconds
    suite.lines = {mutant.file: {"7": ["tests/sweep/a", "tests/engine/b", "tests/engine/c"]}}
    assert suite.tests(mutant, budget=99) == ["tests/engine/c", "tests/engine/b", "tests/sweep/a", "tests/engine/d"]
    assert suite.tests(mutant, budget=5.9) == ["tests/engine/c", "tests/engine/b", "tests/engine/d"]


def test_the_table_has_a_row_for_each_folder_and_one_for_all() -> None:
    tried = [
        mutants.Mutant(f"mnist_exp/{name}.py", line, 0, "1", "2", "") for name in ("x", "sweep/y") for line in (1, 2)
    ]
    text = mutants.table(dict(zip(tried, (True, True, False, True), strict=True)))
    assert "| commands | 2 | 2 | 100% |" in text
    assert "| sweep | 2 | 1 | 50% |" in text
    assert "| **all** | 4 | 3 | 75% |" in text


def test_loaded_functions_get_the_code_of_the_mutant(tmp_path: Path) -> None:
    source = "import functools\ndef one(x):\n    return x + 1\n@functools.cache\ndef two(x):\n    return one(x) > 2\n"
    scope: dict[str, Any] = {}
    exec(compile(source, "x.py", "exec"), scope)
    assert (scope["one"](1), scope["two"](1)) == (2, False)
    scope["two"].cache_clear()
    assert mutants.swap(source, source.replace("> 2", ">= 2")) == 1
    assert scope["two"](1)
    assert mutants.swap(source, source.replace("import functools", "import functools, re")) == 0
    assert mutants.swap(source, source.replace("one(x) >", "(lambda: one(x))() >")) == 0


def test_a_race_that_always_finds_the_best_is_not_worse_at_all() -> None:
    """Exactly: a difference of means was -3e-14, which the page had as a figure."""
    right = np.random.default_rng(0).random((3, 8, 500)) < np.array([0.8, 0.1, 0.1])[:, None, None]
    found, worse = race.compared(right, 5)[:2]
    assert {way: spread.values for way, spread in found.costs.items()} == {"race": [100.0], "equal seeds": [100.0]}
    assert {way: spread.values for way, spread in worse.costs.items()} == {"race": [0.0], "equal seeds": [0.0]}


def test_one_seed_misleads_where_the_better_setting_has_a_bad_one() -> None:
    """One of six settings is better, but with one seed of eight it gets nothing right."""
    right = np.ones((6, 8, 4), dtype=bool)
    right[0, 0], right[1:, :, :2] = False, False
    agreed, worse = race.seeded(right, 400)
    found = {seeds: spread.median for seeds, spread in agreed.costs.items()}
    assert found["1 seed"] == pytest.approx(100 - 100 / 8 * 5 / 15, abs=2), "five of fifteen pairs have it"
    assert found["3 seeds"] == found["6 seeds"] == 100
    lost = {seeds: spread.median for seeds, spread in worse.costs.items()}
    assert lost["1 seed"] == pytest.approx(37.5 / 8, abs=2), "it is tried, and has its bad seed"
    assert lost["6 seeds"] == pytest.approx(37.5 * 5 / 6, abs=4), "five times of six it is not tried"
