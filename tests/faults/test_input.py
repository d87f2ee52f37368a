"""Any input, wrong by accident or on purpose, is refused with a message or trained; nothing in between."""

import dataclasses
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trainings
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.utils import instantiate
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kit import OFF, QUIET, SMALL, command, only_run, runs, whole
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from report_fixtures import write_report

from hydra_plugins.mnist_exp.launchers import LocalConf
from mnist_exp import config
from mnist_exp.config import Config
from mnist_exp.config.explain import is_bad_choice, translate
from mnist_exp.disk import ledger, trust
from mnist_exp.engine.events import Control, EpochEnd, Observer
from mnist_exp.errors import ConfigError, DataError, DivergedError, ExperimentError
from mnist_exp.run import build
from mnist_exp.sweep.local import launch

Tiny = Callable[..., Config]
Injected = Callable[..., None]
REPO = Path(__file__).resolve().parents[2]

NUMBERS = st.sampled_from([-(2**70), -1, 0, 1, 2, 3, 7, 64, 2**31, 2**63, 2**70]) | st.sampled_from(
    ["nan", "inf", "-inf", "1e999", "-0.0", "1e-300", "0.5", "1.5", "3e38"]
)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", " ", "../../x", "null", "a\nb", "\x00", "😀", "${x}", "{", "[", "é" * 300]
)
VALUES = NUMBERS | st.sampled_from(["null", "true", "false", "[]", "[1]", "[0,1]", "{}", "{a:1}", "???"]) | TEXTS
KEYS = [
    key for key in config.settings() if not key.startswith(("resume", "data.torchvision", "data.package", "data.root"))
]


class OneEpoch(Observer):
    """Stops training after its first epoch."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def on_epoch(self, event: EpochEnd) -> None:
        self.control.signal = 15


def typed(key: str, value: Any) -> str:
    """An override with *value* quoted if necessary."""
    text = str(value)
    plain = re.fullmatch(r"[\w.\-\[\],{}:?]*", text, re.ASCII)
    return f"{key}={text}" if plain else f"{key}={QuotedString(text, Quote.single).with_quotes()}"


def attempt(*overrides: str) -> str:
    """`refused` or `trained`; raises on any other outcome."""
    folder = Path("run")
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    try:
        with initialize_config_dir(config.conf_dir(), version_base="1.3"):
            parsed = config.parse(compose("train", [*SMALL, OFF, *overrides]))
        build.rehearse(parsed)
    except Exception as error:
        return explained(error, *overrides)
    parsed.epochs = min(parsed.epochs, 1)
    try:
        trainings.run(parsed, folder, overrides, lambda about, control: [OneEpoch(control)], extras=False)
    except DataError:  # an unknown dataset: its folder is checked on reading, before training
        assert not (folder / "metrics.jsonl").exists()
        return "refused"
    except DivergedError:
        whole(folder)
        return "trained"
    whole(folder)
    assert ledger.read(folder).epoch == 1
    return "trained"


def explained(error: Exception, *overrides: str) -> str:
    """`refused` if *error* has a message for users; raises any other error again."""
    ours = isinstance(error, (ConfigError, HydraException, OmegaConfBaseException))
    if not ours and not is_bad_choice(error):
        raise error
    said = error if isinstance(error, ExperimentError) else translate(error, list(overrides))
    assert said.message
    assert said.exit_code == 2
    return "refused"


def for_values(work: Callable[[Any], object], *chosen: Any, share: int = 5) -> int:
    """Calls *work* with each *chosen* value and with some of `VALUES`; returns the number of calls.

    Args:
        share: Hypothesis's examples are its profile's, divided by this.
    """
    count = 0

    def one(value: Any) -> None:
        nonlocal count
        work(value)
        count += 1

    for value in chosen:
        one = example(value)(one)
    settings(max_examples=settings.default.max_examples // share)(given(VALUES)(one))()
    return count


@pytest.mark.faults(31)
@pytest.mark.parametrize("key", KEYS)
def test_any_value_of_any_key(key: str, injected: Injected) -> None:
    """No config that passes the checks fails before its first epoch; none that fails them starts."""
    injected(for_values(lambda value: attempt(typed(key, value)), "nan", -1, 0, share=10))


def keywords() -> list[tuple[str, str]]:
    """(group=option, key) for each setting of the options of a group, without `_target_`."""
    pairs = []
    for group in ("model", "optimizer", "schedule", "augment"):
        for option in config.options(group):
            node = OmegaConf.to_container(OmegaConf.load(Path(config.conf_dir(), group, f"{option}.yaml")))
            plain: Any = node or {}
            flat = config.flatten(plain.get(group, plain))
            pairs += [(f"{group}={option}", f"{group}.{key}") for key in flat if not key.endswith("_target_")]
    return pairs


@pytest.mark.faults(31)
@pytest.mark.parametrize(("choice", "key"), keywords())
def test_any_value_of_any_keyword_of_an_option(choice: str, key: str, injected: Injected) -> None:
    plain = [choice, "data.mirrors=true", *(["hidden=null"] if "cnn" in choice else [])]
    assert attempt(*plain) == "trained"
    injected(for_values(lambda value: attempt(*plain, typed(key, value)), "nan", -1, 0, share=20))


def launching() -> list[str]:
    return [f"hydra.launcher.{f.name}" for f in dataclasses.fields(LocalConf) if not f.name.startswith("_")]


def launched(override: str) -> str:
    """`refused` or `taken` by the launcher's check of its options before a job starts."""
    try:
        with initialize_config_dir(config.conf_dir(), version_base="1.3"):
            hydra = compose("train", [override], return_hydra_config=True).hydra
        launch.check(instantiate(hydra.launcher).options)
    except Exception as error:
        return explained(error, override)
    return "taken"


def searching() -> list[tuple[str, str]]:
    """(search=preset, key) for the options of sweepers and the keywords of all samplers and pruners."""
    own = [f"hydra.sweeper.{key}" for key in ("objectives", "seed", "batch", "max_failures", "report")]
    pairs = [("search=random", key) for key in own]
    pairs += [("search=grid", f"hydra.sweeper.{key}") for key in ("zip", "seed", "report")]
    for group in ("search", "pruner"):
        for option in config.options(group):
            node = OmegaConf.load(Path(config.conf_dir(), group, f"{option}.yaml"))
            what = "hydra.sweeper.sampler" if group == "search" else "pruner"
            values = OmegaConf.to_container(OmegaConf.select(node, what) or OmegaConf.create())
            keys = [key for key in values if key != "_target_"]  # type: ignore[union-attr]
            choice = f"search={option}" if group == "search" else f"search=tpe pruner={option}"
            pairs += [(choice, f"hydra.sweeper.{what.rpartition('.')[2]}.{key}") for key in keys]
    return pairs


def swept(command: Any, *typed: str) -> str:
    """`refused` or `trained`, as `attempt`, for a sweep."""
    shutil.rmtree("outputs", ignore_errors=True)
    quick = [*SMALL[:5], "epochs=1", *SMALL[7:], OFF, QUIET]
    code, out, err = command("-m", *quick, *typed)  # the last override of a key counts
    assert "Traceback" not in out + err
    if code == 2:
        assert "error: " in err
        assert not runs()
        return "refused"
    assert code in (0, 1), out + err  # 1: a time limit may be short
    assert code == 0 or "job_timeout" in "".join(typed), out + err
    for folder in runs():
        whole(folder)
    assert len(runs()) >= (1 if "n_trials=2" in typed else 2)  # a draw may repeat another, and is not run again
    return "trained"


@pytest.mark.faults(31)
@pytest.mark.parametrize("key", launching())
def test_any_value_of_any_option_of_the_launcher(key: str, injected: Injected) -> None:
    assert launched(typed(key, -1)) == "refused"
    most = "stop" if key.endswith("on_error") else 2**70
    assert swept(command, "hidden=8,12", typed(key, most)) == "trained"
    injected(2 + for_values(lambda value: launched(typed(key, value)), "nan", "inf", 0))


@pytest.mark.faults(31)
def test_an_impossible_option_of_the_launcher_starts_nothing(injected: Injected) -> None:
    assert swept(command, "hidden=8,12", "hydra.launcher.workers=0") == "refused"
    injected()


@pytest.mark.faults(31)
@pytest.mark.filterwarnings("ignore:Callback Guard")  # Hydra's warning about an unresolvable value, which we explain
@pytest.mark.parametrize(("choice", "key"), searching())
def test_any_value_of_any_option_of_a_search(choice: str, key: str, command: Any, injected: Injected) -> None:
    here = [*choice.split(), "hidden=8,12", "lr=1e-3,3e-3", "hydra/launcher=basic", "n_trials=2"]
    injected(for_values(lambda value: swept(command, *here, typed(key, value)), -1, 2**70, share=25))


BAD = {
    "hidden": ["-5", "0", "1e9", "[]", "[64,0]", "2.5", "null"],
    "lr": ["nan", "inf", "0", "-1", "1e999", "fast"],
    "batch_size": ["0", "-1", "1.5"],
    "epochs": ["0", "-1", "null"],
    "optimizer": ["adamm"],
    "optimizer.betas": ["[]", "[0.9]", "[1,1]", "null", "''"],
    "model._target_": ["os.system", "nowhere.Net", "mnist_exp.models.MLPP"],
    "data.val_size": ["-1", "60000"],
    "seed": ["-1", "18446744073709551616"],
}


@pytest.mark.faults(31)
def test_impossible_values_are_refused_all_at_once(injected: Injected) -> None:
    faults = [f"{key}={value}" for key, values in BAD.items() for value in values]
    for override in faults:
        assert attempt(override) == "refused", override
    injected(len(faults))
    code, _, err = command("-m", "hidden=8,-1", "lr=1e-3,0,nan", *SMALL[:4], OFF)
    assert code == 2
    assert "5 of 6 points cannot run; nothing was started." in err
    assert not runs()


HOSTILE = [
    "../../../../escaped",
    "/escaped",
    "two\nlines",
    "<script>alert(1)</script>",
    "naïve 😀",
    "x" * 300,
    "a/b\\c:d*e?f|g",
    "{{7*7}}",
    "%(x)s $HOME `id` $(id)",
    "'; DROP TABLE runs; --",
]


@pytest.mark.faults(32)
def test_hostile_text_is_a_value_and_nothing_else(injected: Injected, scratch: Path) -> None:
    quoted = [QuotedString(text, Quote.single).with_quotes() for text in HOSTILE]
    code, out, err = command("-m", f"+tags.why={','.join(quoted)}", "name=x", *SMALL[:6], "epochs=1", *SMALL[7:], OFF)
    assert code == 2, out + err
    assert "No result depends on tags.why: give one value." in err
    both = [f"name={quoted[3]}", f"+tags.why={quoted[0]}"]
    for number, text in enumerate(quoted):
        code, out, err = (0, "", "") if number % 3 else command(*SMALL, OFF, f"name={text}", f"+tags.why={text}")
        assert code == 0, out + err
    assert both
    assert not [p for parent in (scratch.parent, Path("/")) for p in parent.glob("escaped*")]
    assert not [p for p in scratch.rglob("*") if "escaped" in p.name or "script" in p.name or len(p.name) > 100]
    for folder in runs():
        whole(folder)
        page = write_report(folder).read_text()
        assert "<script>alert" not in page
    assert not list(Path().rglob("49"))
    injected(len(HOSTILE))


@pytest.mark.faults(32)
@pytest.mark.parametrize("text", ["naïve", "a b", "two\nlines", "(", "x" * 10_000, "😀"])
def test_unquoted_text_is_accepted_or_the_error_shows_how_to_quote(text: str, injected: Injected) -> None:
    code, out, err = command(*SMALL, OFF, f"name={text}")
    if code == 0:
        assert ledger.read(only_run()).name == text[:250]
    else:
        assert code == 2, out + err
        assert "quotes" in err
        assert not runs()
    injected()


@pytest.mark.faults(32)
@pytest.mark.parametrize("target", ["os.system", "subprocess.run", "builtins.eval", "pickle.loads", "shutil.rmtree"])
def test_what_runs_commands_is_not_called(target: str, injected: Injected) -> None:
    override = f"model._target_={target}"
    assert attempt(override) == "refused"
    injected()


CANARY = "c4n4ry-d0-n0t-wr1te"


def files_with_canary() -> list[Path]:
    """All files with the canary."""
    files = [path for path in Path().rglob("*") if path.is_file()]
    return [path for path in files if CANARY.encode() in path.read_bytes()]


@pytest.mark.faults(33)
@pytest.mark.parametrize(
    "override",
    [
        f"tracking.uri=postgresql://me:{CANARY}@127.0.0.1:1/db",
        f"tracking.uri=http://{CANARY}@127.0.0.1:1",
        f"+tags.api_key={CANARY}",
        f"+tags.HF_TOKEN={CANARY}",
        f"+model.password={CANARY}",
        f"+tags={{wandb_api_key: {CANARY}}}",
        f"+hydra.job.env_set.AWS_SECRET_ACCESS_KEY={CANARY}",
        f"+tags.HF_TOKEN=4{CANARY}",
        "+tags.note=${oc.env:MY_API_KEY}",
        "+tags.HF_TOKEN=${oc.env:MY_API_KEY}",
    ],
)
@pytest.mark.parametrize("many", [[], ["-m"]], ids=["run", "sweep"])
def test_a_secret_is_refused_before_anything_is_written(
    override: str, many: list[str], command: Any, injected: Injected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", CANARY)
    code, out, err = command(*many, *SMALL, OFF, override)
    assert code == 2, out + err
    assert CANARY not in out + err
    assert "and a run writes its config to files and to MLflow" in err
    assert "environment" in err or (many and "oc.env" in override)  # reported as one of many points
    assert not files_with_canary()
    injected()


IN_A_FILE = {
    "tracking.uri": f"tracking:\n  uri: postgresql://me:{CANARY}@h/db\n",
    "tags.api_key": f"tags:\n  api_key: {CANARY}\n",
    "model.keys.api_key": f"model:\n  keys:\n    - api_key: {CANARY}\n",
    "hydra.job.env_set.HF_TOKEN": f"hydra:\n  job:\n    env_set:\n      HF_TOKEN: {CANARY}\n",
    "hydra.sweeper.storage": f"hydra:\n  sweeper:\n    storage: postgresql://me:{CANARY}@h/db\n",
    "hydra.launcher.env.X_PASSWORD": f"hydra:\n  launcher:\n    env:\n      X_PASSWORD: {CANARY}\n",
}


@pytest.mark.faults(33)
@pytest.mark.parametrize("key", IN_A_FILE)
@pytest.mark.parametrize("many", [[], ["-m"]], ids=["run", "sweep"])
def test_a_secret_in_a_file_of_the_user_is_not_copied(
    key: str, many: list[str], command: Any, injected: Injected
) -> None:
    """Also among the options of a sweeper and of a launcher that accepts any key."""
    Path("mine/extra").mkdir(parents=True)
    choice = {"hydra.sweeper": ["search=tpe"], "hydra.launcher": ["cluster=ray"]}.get(key.rpartition(".")[0][:14], [])
    Path("mine/extra/x.yaml").write_text(f"# @package _global_\n{IN_A_FILE[key]}")
    code, out, err = command(*many, "--config-dir=mine", "+extra=x", *choice, *SMALL)
    assert code == 2, out + err
    assert CANARY not in out + err
    assert f"error: {key} " in err
    assert "and a run writes its config to files and to MLflow" in err
    assert files_with_canary() == [Path("mine/extra/x.yaml")]
    assert not Path("outputs").exists()
    injected()


@pytest.mark.faults(33)
def test_no_file_holds_what_the_environment_has(injected: Injected) -> None:
    secrets = {name: CANARY for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MY_API_KEY")}
    uri = f"http://me:{CANARY}@127.0.0.1:9"
    code, out, err = command(*SMALL, "tracking.patience=1", MLFLOW_TRACKING_URI=uri, **secrets)
    assert code == 0, err
    assert CANARY not in out + err
    for module in ("report", "doctor", "sync"):
        _, out, err = command(module=module, MLFLOW_TRACKING_URI=uri, **secrets)
        assert CANARY not in out + err
    code, out, err = command(*SMALL, "tracking.figures=false", "tracking.patience=30", **secrets)  # to a database
    assert code == 0, err
    assert Path("mlflow.db").exists()
    assert not files_with_canary()
    injected(len(secrets) + 1)


@pytest.mark.faults(34)
def test_no_other_user_may_write(injected: Injected) -> None:
    before = os.umask(0o022)
    try:
        code, _, err = command("-m", *SMALL, "hidden=8,12", "tracking.figures=false")
        assert code == 0, err
        open_to_all = [p for p in Path().rglob("*") if not p.is_symlink() and p.stat().st_mode & stat.S_IWOTH]
    finally:
        os.umask(before)
    assert not open_to_all
    injected()


@pytest.mark.faults(34)
def test_whatever_listens_listens_on_loopback(injected: Injected) -> None:
    sources = [*REPO.glob("mnist_exp/**/*.py"), *REPO.glob("benchmarks/**/*.py"), *REPO.glob("docs/*.md")]
    assert len(sources) > 50
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "0.0.0.0" not in text, path
        for host in re.findall(r"--host[= ](\S+?)[\"'`\s,]", text):
            assert host == "127.0.0.1", path
    injected()


@pytest.mark.faults(34)
def test_a_config_from_elsewhere_calls_nothing_of_its_own(tiny: Tiny, injected: Injected) -> None:
    theirs = tiny()
    Path("config.yaml").write_text(config.to_yaml(theirs))
    assert trust.load(Path()) == theirs
    theirs.model = {
        "_target_": "torch.hub.load",
        "repo_or_dir": "somebody/else",
        "nested": [{"_target_": "joblib.load"}],
    }
    theirs.hidden = 128
    Path("config.yaml").write_text(config.to_yaml(theirs))
    with pytest.raises(ConfigError, match=r"would call joblib\.load, torch\.hub\.load, which no file of conf/ names"):
        trust.load(Path())
    injected()
