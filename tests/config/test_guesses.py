"""A key that is no setting: which one was meant."""

import pytest

from mnist_exp.config import choices, schema
from mnist_exp.config.guesses import SETTING_OF, guess, unknown_key

MEANT = {
    "learning_rate": "lr",
    "Learning-Rate": "lr",
    "dropout": "model.dropout",
    "layers": "hidden",
    "units": "hidden",
    "neurons": "hidden",
    "n_hidden": "hidden",
    "dropout_rate": "model.dropout",
    "weight_decay": "optimizer.weight_decay",
    "num_workers": "hydra.launcher.workers",
    "momentum": "optimizer.momentum",
    "batch": "batch_size",
    "bs": "batch_size",
    "optim": "optimizer",
    "model_name": "model",
    "gpu": "device=cuda",
    # other tools' sections
    "trainer.max_epochs": "epochs",
    "optim.lr": "lr",
    "model.hidden_size": "hidden",
    "optimizer.learning_rate": "lr",
    # other launchers and sweepers
    "hydra.sweeper.n_trials": "n_trials",
    "hydra.sweeper.n_jobs": "hydra.launcher.workers",
    "hydra.sweeper.direction": "hydra.sweeper.objectives",
    "hydra.launcher.n_jobs": "hydra.launcher.workers",
    "hydra.launcher.timeout_min": "hydra.launcher.job_timeout",
    "hydra.launcher.partition": "cluster=slurm",
    "val_size": "data.val_size",
    "limit": "data.limit",
    "betas": "optimizer.betas",
    "data.batch_size": "batch_size",
    "optimizer.name": "optimizer",
    "dataset.name": "data",
    "config": "experiment",
    # spelling
    "epcohs": "epochs",
    "learing_rate": "lr",
    "early_stoping": "training.patience",
    "val_sice": "data.val_size",
    "tracking.url": "tracking.uri",
    "optimizer.wieght_decay": "optimizer.weight_decay",
    "hydra.launcher.worker": "hydra.launcher.workers",
    "hydra.sweeper.fist": "hydra.sweeper.first",
    # nothing near
    "optimizer.foreach": "",
    "hydra.foo": "",
    "xyz": "",
}


@pytest.mark.parametrize("path", MEANT)
def test_what_was_meant(path: str) -> None:
    assert guess(path) == MEANT[path]


def test_a_keyword_says_which_options_have_it() -> None:
    assert unknown_key("momentum").help == "Did you mean 'optimizer.momentum'? Of optimizer=…, muon, sgd have it."
    error = unknown_key("optimizer.momentum", "optimizer.momentum=0.8")
    assert error.message == "There is no setting 'optimizer.momentum' (override 'optimizer.momentum=0.8')."
    assert error.help.startswith("Of optimizer=…, muon, sgd have it.")


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("hydra.sweeper.first", "search=race"),
        ("hydra.sweeper.max_failures", "search=tpe"),
        ("hydra.sweeper.zip", "search=grid or search=race"),
        ("hydra.launcher.retries", "cluster=local or cluster=ray"),
    ],
)
def test_an_option_of_another_launcher_or_sweeper_says_how_that_is_chosen(path: str, chosen: str) -> None:
    assert unknown_key(path).help.startswith(f"It is an option of {chosen}.")


def test_every_synonym_leads_to_what_can_be_typed() -> None:
    known = {*schema.settings(), *choices.groups(), *choices.keywords()}
    for meant in set(SETTING_OF.values()):
        key, _, value = meant.partition("=")
        assert key in known or key.startswith("hydra."), meant
        assert not value or key == "device" or value in choices.options(key), meant
    assert not known.intersection(SETTING_OF)
    words = " ".join(schema.SYNONYMS.values()).split()
    assert sorted(words) == sorted(set(words))
