"""What counts as a secret, and what of a difference of files is hidden."""

from typing import Any

import pytest

from mnist_exp.config import secrets as privacy

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
        ({"a_token": "${oc.env:A_TOKEN}", "b_token": "${oc.env:B,null}", "c_token": None, "d_token": False}, None),
        ({"storage": "postgresql://host/db", "monkey": "banana", "keys": "a", "seed": 7, "short": "1234"}, None),
    ],
)
def test_a_secret_is_known_by_its_name_its_form_or_the_environment(
    plain: Any, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", VALUE)
    monkeypatch.setenv("SHORT_TOKEN", "1234")
    assert privacy.first(plain) == key


@pytest.mark.parametrize(
    ("override", "is_one"),
    [
        (f"+tags.HF_TOKEN={VALUE}", True),
        ("+hydra.job.env_set.X_KEY=4", True),
        ("+tags={api_key: 1}", True),
        ("tracking.uri=http://token@host", True),
        ("+tags.api_key=${oc.env:MY_KEY}", False),
        ("+tags.api_key=null", False),
        ("+tags.donkey=1", False),
        ("hidden=128", False),
    ],
)
def test_a_secret_is_known_where_it_is_typed(override: str, is_one: bool) -> None:
    assert privacy.typed(override) == is_one


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
    ],
)
def test_what_looks_like_a_secret_is_hidden(line: str) -> None:
    hidden = privacy.hide(f"+before\n{line}\n+after\n")
    assert VALUE not in hidden
    assert "…" in hidden
    assert hidden.startswith("+before\n")
    assert hidden.endswith("\n+after\n")


@pytest.mark.parametrize(
    "line",
    ["+    token: str = read()", "+key = names[0]", "+password = ask()", "+    monkey: 1", "+basic trust", "+a: b"],
)
def test_the_rest_is_left(line: str) -> None:
    assert privacy.hide(f"{line}\n") == f"{line}\n"
