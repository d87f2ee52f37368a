"""What people type wrongly, or Hydra takes wrongly, on the real command line: exit code, sentence, way out.

What trains nothing is asked for with --dry-run, which prints the points and writes nothing.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import TINY, script

from mnist_exp import system

Command = Callable[..., tuple[int, str, str]]

FILES = {
    "mine/experiment/local.yaml": "hidden: 16\n",
    "mine/experiment/off.yaml": "# @package _global_\ndefaults:\n  - override /tracking: off\n",
    "mine/experiment/declared.yaml": "# @package _global_\nhydra:\n  sweeper:\n    params:\n      hidden: 16,32\n",
    "odd.yaml": "- {name: \"it's a=b\", model: {dropout: 0.5}}\n- {name: 'a, b', model: {dropout: 0.1}}\n",
    "mysearch.py": "def space(trial):\n    return {'hidden': [trial.suggest_int('width', 8, 16)] * 2}\n",
}

REFUSED = {
    # values
    "-m 'hidden=range(64,16,16)'": ("hidden=range(64,16,16) has no values.", "or down: range(64,15,-16)"),
    "-m 'optimizer=glob(x*)'": ("optimizer=glob(x*) has no values.", "There are: adam, adamw, muon, sgd"),
    "-m search=random 'lr=tag(logarithmic,interval(1e-4,1e-1))'": (
        "there is no tag logarithmic.",
        "'lr=tag(log,interval(…))'",
    ),
    "-m search=random 'hidden=[interval(8,16),interval(8,16)]'": (
        "what varies cannot be inside a list.",
        "hydra.sweeper.space=mysearch.space",
    ),
    "-m hidden=16,32 resume=last,best": ("a sweep has one resume.", "Give it one value."),
    "'lr=interval(1e-4,1e-1)'": ("is for a sweep, and this would be a single run.", "Add -m: python -m"),
    "hydra.launcher.workers=2": ("is for a sweep, and this would be a single run.", "Add -m: python -m"),
    # groups
    "~tracking": ("'~tracking' leaves no choice of tracking", "Write tracking=off"),
    "~tracking epochs=2": ("'~tracking' leaves no choice of tracking", "Write tracking=off"),
    "~cluster": ("'~cluster' leaves no choice of cluster", "Drop '~cluster'."),
    "-m ~search hidden=16,32": ("'~search' leaves no choice of search", "Drop '~search'."),
    "-m hidden=choice(8,16),32": ("what varies cannot be inside a list.", "List whole values"),
    "-m search=random hidden=8,16 enqueue=no.csv --dry-run": ("enqueue=no.csv cannot be read", "A CSV file has keys"),
    "-m search=random hidden=8,16 time_budget=soon --dry-run": ("time_budget must be", "time_budget"),
    "-m time_budget=10m hidden=8,16 --dry-run": ("time_budget is for a search, and this is a grid.", "Add search=tpe"),
    "augment=[shift,affine]": ("mixes options, and a run has one augment.", "-m augment=shift,affine"),
    "hydra=null tracking=off": ("hydra holds names with values.", "Such as hydra.run.dir=…"),
    "hydra.run=x": ("hydra.run holds names with values.", "Such as hydra.run.dir=…"),
    "hydra.sweeper=optuna": ("hydra.sweeper holds names with values.", "Write hydra/sweeper=optuna"),
    "-m hydra.launcher=joblib hidden=16,32": ("hydra.launcher holds names with values.", "Write hydra/launcher=joblib"),
    # files of one's own
    "--config-dir mine experiment=local": (
        "experiment/local.yaml sets what is not in experiment",
        "Make its first line: # @package _global_",
    ),
    "--config-dir mine experiment=off": ("off.yaml, line 3: tracking takes the name of an option", "/tracking: 'off'"),
    # other names, and slips
    "learning_rate=0.1": ("There is no setting 'learning_rate'", "Did you mean 'lr'?"),
    "dropout=0.2": ("There is no setting 'dropout'", "Did you mean 'model.dropout'?"),
    "layers=2": ("There is no setting 'layers'", "Did you mean 'hidden'?"),
    "weight_decay=0.1": ("There is no setting 'weight_decay'", "Did you mean 'optimizer.weight_decay'?"),
    "num_workers=2": ("There is no setting 'num_workers'", "Did you mean 'hydra.launcher.workers'?"),
    "-m hidden=16,32 hydra.launcher.n_jobs=2": ("'hydra.launcher.n_jobs'", "Did you mean 'hydra.launcher.workers'?"),
    "-m hidden=16,32 hydra.launcher.partition=gpu": ("'hydra.launcher.partition'", "cluster=slurm"),
    "-m hidden=16,32 hydra.sweeper.n_trials=3": ("'hydra.sweeper.n_trials'", "Did you mean 'n_trials'?"),
    "-m hidden=16,32 hydra.sweeper.first=3": ("'hydra.sweeper.first'", "It is an option of search=race."),
    "lrate=0.1": ("There is no setting 'lrate'", "Did you mean 'lr'?"),
    "learing_rate=0.1": ("There is no setting 'learing_rate'", "Did you mean 'lr'?"),
    "early_stoping=3": ("There is no setting 'early_stoping'", "Did you mean 'training.patience'?"),
    "-m hiden=16,32": ("There is no setting 'hiden'", "Did you mean 'hidden'?"),
    "-m learning_rate=0.1,0.2": ("There is no setting 'learning_rate'", "Did you mean 'lr'?"),
    # words that cannot be read
    "hidden=[64, 32]": ("hidden=[64, 32] has spaces in it.", "Write 'hidden=[64,32]'"),
    "-m hidden=64, 32": ("hidden=64, 32 has spaces in it.", "Write hidden=64,32"),
    "hidden=64,": ("hidden=64, has brackets or commas too many", "Write hidden=64"),
    "hidden 64": ("'hidden' has no value.", "Write hidden=64"),
    "--hidden 64": ("There is no option --hidden.", "Settings are written without dashes: hidden=64"),
    "-hidden 64": ("There is no option -hidden.", "Settings are written without dashes: hidden=64"),
    "-precision=bf16": ("There is no option -precision=bf16.", "without dashes: precision=bf16"),
    "'hidden=64]'": ("hidden=64] has a sign that does not belong there.", "Write hidden=64"),
    "'hidden=64;32'": ("hidden=64;32 has a sign that does not belong there.", "Write hidden=64,32"),
    "hidden==64": ("hidden==64 has a sign that does not belong there.", "Write hidden=64"),
    "+hidden=64": ("hidden is a setting already.", "Write it without +: hidden=…"),
    "--config-name other": ("There is no config called 'other' beside ours.", "Drop --config-name"),
    "--config-dir nowhere": ("--config-dir: there is no folder", "Name one that is there."),
    "-m search=halving_grid": ("There is nothing to search", "Give some a list: hidden=64,128"),
    "--learning-rate=0.1": ("There is no option --learning-rate=0.1.", "without dashes: lr=0.1"),
    "'hidden=[64,32'": ("hidden=[64,32 has brackets or commas too many, or too few.", "Write 'hidden=[64,32]'"),
    "-m threads=1,2": ("threads=2: It is the same run as data=synthetic", "depends on threads: give one value."),
    "-m name=a,b checkpoint.enabled=true,false": ("3 of 4 points cannot run", "No result depends on"),
    "--experimental-rerun config.pickle": ("loads a pickle, which can run any code.", "python -m mnist_exp.rerun RUN"),
}  # fmt: skip
"""What is typed → the sentence, and the way out; the exit code is 2, and nothing is written."""

DONE = {
    "-m 'hidden=sort(range(16,70,20),reverse=true)' --dry-run": ("#0  hidden=56 ", "#1  hidden=36 ", "#2  hidden=16 "),
    "-m 'hidden=sort(range(16,70,20))' --dry-run": ("#0  hidden=16 ", "#1  hidden=36 ", "#2  hidden=56 "),
    "-m optimizer=sgd,muon optimizer.momentum=0.8 --dry-run": ("Dry run: 2 runs.", "optimizer.momentum=0.8"),
    "-m augment=shift,affine augment.shift=1 --dry-run": ("Dry run: 2 runs.", "augment.shift=1"),
    "-m 'optimizer=glob([s*,m*],exclude=mu*)' --dry-run": ("optimizer=sgd",),
    "-m search=halving_grid 'hidden=range(16,65,16)' --dry-run": ("Dry run: 4 trials", "Searched: hidden=range("),
    "-m hydra/sweeper=optuna hidden=16,32 --dry-run": ("Dry run: 50 trials; TPESampler", "Searched: hidden=16,32"),
    "-m --config-dir mine experiment=declared --dry-run": ("Dry run: 2 runs.", "hidden=16", "hidden=32"),
    "-m search=points points=odd.yaml --dry-run": (r"name='it\'s a=b' model.dropout=0.5", "'a, b' model.dropout=0.1"),
    "-m hidden=16,32 --cfg job --package hidden": ("16\n",),
    "hidden=16 --info": ("Config search path",),
}  # fmt: skip
"""What is typed → what is said, in this order; the exit code is 0, and nothing is written."""


@pytest.fixture(autouse=True)
def files() -> None:
    """Files that the commands name."""
    for name, text in FILES.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def words(typed: str) -> list[str]:
    """What a shell makes of *typed*, where brackets and blanks are not in quotes, too."""
    return ["data=synthetic", *shlex.split(typed)]


@pytest.mark.integration
@pytest.mark.parametrize("typed", REFUSED)
def test_what_is_refused_says_what_is_wrong_and_how_it_is_written(typed: str, command: Command) -> None:
    code, _, err = command(*words(typed))
    sentence, way_out = REFUSED[typed]
    assert code == 2
    assert sentence in err.partition("help: ")[0]
    assert way_out in err.partition("help: ")[2]
    assert "Traceback" not in err
    assert not Path("outputs").exists()


@pytest.mark.integration
@pytest.mark.parametrize("typed", DONE)
def test_what_hydra_takes_wrongly_or_not_at_all_is_done(typed: str, command: Command) -> None:
    code, out, err = command(*words(typed))
    assert code == 0, err
    assert err == ""
    for said in DONE[typed]:
        found, said, out = out.partition(said)
        assert said, found
    assert not Path("outputs").exists()


@pytest.mark.parametrize(("typed", "said"), script("configuration").TYPED)
def test_what_the_docs_say_is_said(typed: str, said: str) -> None:
    assert any(said in text for text in (*REFUSED.get(typed, ()), *DONE.get(typed, ())))


def test_a_network_that_exceeds_the_free_memory_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of `hidden=1000000` was killed in training, because the whole memory was compared."""
    monkeypatch.setattr(system, "memory", lambda: 8 * 10**9)
    code, _, err = command("data=synthetic", "hidden=1000000")
    assert code == 2
    assert "A network of 795,000,010 parameters takes 17 GB" in err
    assert "but this machine has 8 free." in err
    assert "help: Choose a smaller one." in err


def test_each_line_is_there_once_with_the_logging_of_hydra(command: Command) -> None:
    code, out, err = command(*TINY, "hydra/job_logging=default")
    assert code == 0, err
    assert [(out + err).count(f"Epoch {epoch}/2, ") for epoch in (1, 2)] == [1, 1]


@pytest.mark.integration
def test_a_group_that_is_typed_again_as_it_was_changes_nothing(command: Command) -> None:
    assert command(*TINY)[0] == 0
    code, out, err = command("resume=last", "data=synthetic", "hidden=16")
    assert code == 0, err
    assert "Nothing was trained: this run is finished already." in out


@pytest.mark.integration
def test_a_console_script_finds_a_space_in_the_working_folder(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m` has the working folder among its paths, a console script has not."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
    code, out, err = command("-m", "data=synthetic", "search=random", "hydra.sweeper.space=mysearch.space", "--dry-run")
    assert code == 0, err
    assert "Dry run: 50 trials; RandomSampler" in out
