"""What counts as a secret, and what of a difference of files is hidden."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mnist_exp import config as configs
from mnist_exp.config import secrets
from mnist_exp.config.guesses import sweep_settings
from mnist_exp.config.schema import settings

VALUE = "4f3c9a7e21"


@pytest.mark.parametrize(
    ("plain", "key"),
    [
        ({"tags": {"HF_TOKEN": VALUE}}, "tags.HF_TOKEN"),
        ({"tags": {"pin_secret": 12345678}}, "tags.pin_secret"),
        ({"a": [{"b": {"api-key": "x"}}]}, "a.b.api-key"),
        ({"a": ["http://me:pw@host"]}, "a"),
        ({"storage": "postgresql://me:pw@host/db"}, "storage"),
        ({"note": f"see {VALUE}."}, "note"),
        ({"a_token": "${oc.env:A_TOKEN,literal}"}, "a_token"),
        ({"tags": {"db_passwd": "x"}}, "tags.db_passwd"),
        ({"tags": {"aws_credentials": "x"}}, "tags.aws_credentials"),
        ({"tags": {"http_auth": "x"}}, "tags.http_auth"),
        ({"tags": {"DB_PWD": "x"}}, "tags.DB_PWD"),
        ({"AWS_ACCESS_KEY_ID": "x"}, "AWS_ACCESS_KEY_ID"),
        ({"my_secret": {"first": "x"}}, "my_secret.first"),
        ({"a": "https://token@host"}, "a"),
        ({"a": "https://host/simple?x=1&key=abc"}, "a"),
        ({"a": "postgresql://host/db?password=abc"}, "a"),
        ({"a_token": "${oc.env:A_TOKEN}", "b_token": "${oc.env:B,null}", "c_token": None, "d_token": False}, None),
        (
            {"storage": "postgresql://me@host/db?sslmode=require", "model": {"token_dim": 8, "num_key_value_heads": 2}},
            None,
        ),
        ({"author": "a", "override": {"exclude_keys": ["seed"]}, "max_tokens": 3, "keyword": "a", "pwd": "/"}, None),
        ({"storage": "postgresql://host/db", "monkey": "banana", "keys": "a", "seed": 7, "short": "1234"}, None),
    ],
)
def test_a_secret_is_known_by_its_name_its_form_or_the_environment(
    plain: Any, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", VALUE)
    monkeypatch.setenv("SHORT_TOKEN", "1234")
    assert secrets.first(plain) == key


@pytest.mark.parametrize(
    ("override", "is_one"),
    [
        (f"+tags.HF_TOKEN={VALUE}", True),
        ("+hydra.job.env_set.X_KEY=4", True),
        ("+tags={api_key: 1}", True),
        ("tracking.uri=http://token@host", True),
        ("+tags.api_key=${oc.env:MY_KEY}", False),
        ("+tags.api_key=null", False),
        ("+tags.db_passwd=x", True),
        ("+tags.aws_credentials=x", True),
        ("+tags.http_auth=x", True),
        ("hydra.sweeper.storage=postgresql://host/db?password=x", True),
        ("+model.token_dim=64", False),
        ("tracking.uri=postgresql://me@host/db", False),
        ("+tags.donkey=1", False),
        ("hidden=128", False),
    ],
)
def test_a_secret_is_known_where_it_is_typed(override: str, is_one: bool) -> None:
    assert secrets.typed(override) == is_one


@pytest.mark.parametrize(
    "line",
    [
        f"+password: {VALUE}",
        f"  api_key: {VALUE}  # mine",
        f"- - api-key: {VALUE}",
        f"+export TOKEN={VALUE} # c",
        f"+ENV HF_TOKEN={VALUE}",
        f"run --env API_KEY={VALUE} --now",
        f"password = {VALUE}",
        f'headers = {{"Authorization": "Bearer {VALUE}"}}',
        f"curl -H 'Authorization: bearer {VALUE}'",
        f'"api_key": "{VALUE}"',
        f"token='{VALUE}'",
        f"postgresql://me:{VALUE}@host/db",
        f"https://{VALUE}@host",
        f"+db_passwd: {VALUE}",
        f"HTTP_AUTH={VALUE} run",
        f"aws_credentials = '{VALUE}'",
    ],
)
def test_what_looks_like_a_secret_is_hidden(line: str) -> None:
    hidden = secrets.hide(f"+before\n{line}\n+after\n")
    assert VALUE not in hidden
    assert "…" in hidden
    assert hidden.startswith("+before\n")
    assert hidden.endswith("\n+after\n")


@pytest.mark.parametrize(
    "line",
    ["+    token: str = read()", "+key = names[0]", "+password = ask()", "+    monkey: 1", "+basic trust", "+a: b"],
)
def test_the_rest_is_left(line: str) -> None:
    assert secrets.hide(f"{line}\n") == f"{line}\n"


def test_a_file_that_the_environment_names_is_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    assert secrets.first({"data": {"root": f"{tmp_path}/images"}}) is None


@pytest.mark.parametrize("name", settings())
def test_no_setting_is_called_a_secret(name: str) -> None:
    assert not secrets.named(name)


def test_no_option_of_hydra_is_called_a_secret() -> None:
    with initialize_config_dir(configs.conf_dir(), version_base="1.3"):
        composed = compose("train", return_hydra_config=True)
    plain: Any = OmegaConf.to_container(composed)
    assert secrets.first(plain) is None
    assert not list(filter(secrets.named, [*configs.flatten(plain), *chain(*sweep_settings().values())]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        ("postgresql://me:p@w@host/db", "postgresql://host/db"),
        ("of http://host and me@host", "of http://host and me@host"),
        ("http://host/x?key=abc&monkey=b&api_token=c#d", "http://host/x?key=…&monkey=b&api_token=…"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_login(text: str, shown: str) -> None:
    assert secrets.without_login(text) == shown
