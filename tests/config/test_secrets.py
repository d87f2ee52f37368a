"""What counts as a secret, and what of a difference of files is hidden."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sqlalchemy.engine import URL, make_url

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
        ({"tags": {"pwd": "x"}}, "tags.pwd"),
        ({"tags": {"github_pat": "x"}}, "tags.github_pat"),
        ({"tags": {"passphrase": "x"}}, "tags.passphrase"),
        ({"tags": {"api_keys": ["x"]}}, "tags.api_keys"),
        ({"tags": {"DB_PASS": "x"}}, "tags.DB_PASS"),
        ({"storage": "postgresql://user:pa/ss@host/db"}, "storage"),
        ({"storage": "postgresql://user:p w@host/db"}, "storage"),
        ({"storage": "host=h user=u password=x"}, "storage"),
        ({"a": "https://host/x?X-Amz-Signature=abc"}, "a"),
        ({"a": "https://token@host"}, "a"),
        ({"a": "https://host/simple?x=1&key=abc"}, "a"),
        ({"a": "postgresql://host/db?password=abc"}, "a"),
        ({"a": "mssql+pyodbc:///?odbc_connect=Driver%3DX%3BPWD%3Dhunter2"}, "a"),
        ({"a": "postgresql://host/db?options=-c%20password%3Dx"}, "a"),
        ({"a": "postgresql://host/db?options=-c+password%253Dx"}, "a"),
        ({"a": "http://host/a;password=x"}, "a"),
        ({"tags": {"pass": "x"}}, "tags.pass"),
        ({"tags": {"tokens": ["x"]}}, "tags.tokens"),
        ({"a_token": "${oc.env:A_TOKEN}", "b_token": "${oc.env:B,null}", "c_token": None, "d_token": False}, None),
        (
            {"storage": "postgresql://me@host/db?sslmode=require", "model": {"token_dim": 8, "num_key_value_heads": 2}},
            None,
        ),
        (
            {"author": "a", "override": {"exclude_keys": ["seed"]}, "max_tokens": 3, "keyword": "a", "pattern": "/"},
            None,
        ),
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


TOKENS = (
    f"ghp_{'a1' * 18}",
    f"github_pat_{'a1' * 20}",
    f"hf_{'a1' * 17}",
    "AKIAABCDEFGHIJKLMNOP",
    "xoxb-123456789012-abcdefghijkl",
    f"sk-proj-{'a1' * 24}",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefgh",
    f"glpat-{'a1' * 10}",
    f"dapi{'a1' * 16}",
    f"AIza{'a1b' * 11}cd",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    f"hvs.{'a1' * 12}",
    f"dckr_pat_{'a1' * 12}",
    f"ya29.{'a1' * 12}",
    f"SG.{'a1' * 11}.{'b2' * 20}",
    f"nvapi-{'a1' * 20}",
)


@pytest.mark.parametrize(
    "name", ["pswd", "creds", "dbpass", "userpwd", "passcode", "sshkey", "tags.pass", "tokens", "DB_PASS", "api_tokens"]
)
def test_a_name_of_a_secret(name: str) -> None:
    assert secrets.named(name)


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "num_tokens", "n_tokens", "tokenizer", "bypass", "compass", "passes", "credits", "password_len"],
)
def test_a_name_of_something_else(name: str) -> None:
    assert not secrets.named(name)


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_known_by_its_form(token: str) -> None:
    assert secrets.first({"tags": {"note": f"see {token}."}}) == "tags.note"
    assert secrets.typed(f"+tags.note={token}")
    assert secrets.hide(f"+see {token}.\n") == "+see ….\n"


@pytest.mark.parametrize("text", ["sk-learn-like-network-of-mine", "hf_transfer", "mask-rcnn", "eyJ", "dapi", "AKIA"])
def test_other_texts_are_no_tokens(text: str) -> None:
    assert secrets.first({"tags": {"note": text}}) is None


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
        f"Authorization: Bearer {VALUE}",
        f"authorization: Token {VALUE}",
        f"curl -H 'Authorization: Token {VALUE}' https://host",
        f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{VALUE}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n+MIIEowIBAAKCAQEAx{VALUE}",
        f"""password = "o'{VALUE}\"""",
        f"passphrase: correct {VALUE} horse",
        f'password=f"a{VALUE}"',
        f"password=b'{VALUE}'",
        f'password = """\n{VALUE}\n"""',
        f'password="x\\"y{VALUE}"',
        f"connect(password={VALUE}, user=me)",
        f"connect(user=me,password={VALUE})",
        f"password:{VALUE}",
        f"--password {VALUE}",
        f'["--password", "{VALUE}"]',
        f"{{user: me, password: {VALUE}}}",
        f'"{{\\"password\\": \\"{VALUE}\\"}}"',
        f"def connect(password: str = '{VALUE}') -> None:",
        f"api_keys: [a, {VALUE}]",
        f"cannot open 'postgresql://me:p {VALUE}@host/db' now",
        f"postgresql://me:p<{VALUE}@host/db",
        f'postgresql://me:p"{VALUE}@host/db',
        f"http://host/a;password={VALUE}",
        f"token=token,password={VALUE}",
        f"password=$PASSWORD{VALUE}",
        f"password=${VALUE}",
        f"password=$PASSWORD,{VALUE}",
        f"run --password $Ecret{VALUE}",
        f"token=my.{VALUE}.token-",
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
    [
        *(
            "+    token: str = read()",
            "+key = names[0]",
            "+password = ask()",
            "+    monkey: 1",
            "+basic trust",
            "+a: b",
        ),
        *("+    password = ask(  # why", "token = tokens[0].strip()", "if token: return x", "for token in tokens:"),
        *("def f(token: str, other: int) -> str:", "f(password=None, user=1)", "password=${oc.env:DB_PASSWORD}"),
        *("see http://127.0.0.1:5000/#/experiments/1 or ask me@host", "lr=1e-3 hidden=512,256", "/home/me/token/x.txt"),
        *("python -m mnist_exp.train -m resume=./x", "a password, and more", "max_tokens: 3", "secret: true"),
        "init=model@0123456789ab",
        *("connect(token=token, user=me)", "connect(token=self.token)", "login(api_key=args.api_key, x=1)"),
        *("curl -u me --password $PASSWORD", "run password=$PASSWORD", "docker run -e HF_TOKEN=${HF_TOKEN} x"),
        *("set TOKEN=%DB_PASSWORD%", "run token=$env:HF_TOKEN", "PASSWORD: $DB_PASSWORD"),
    ],
)
def test_the_rest_is_left(line: str) -> None:
    assert secrets.hide(f"{line}\n") == f"{line}\n"


def test_a_secret_of_the_environment_is_hidden_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program's error may quote it behind any name, or none."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2hunter2-3")
    monkeypatch.setenv("SHORT_TOKEN", "1234")
    monkeypatch.setenv("NO_MATTER", "open sesame")
    text = "refused: me/hunter2hunter2, hunter2hunter2-3, 1234, open sesame"
    assert secrets.hide(text) == "refused: me/…, …, 1234, open sesame"


def test_a_secret_that_is_an_ordinary_word_is_found_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "postgres")
    assert secrets.first({"tracking": {"uri": "postgresql://host/db"}}) is None
    assert secrets.first({"note": "it is postgres"}) == "note"
    assert secrets.hide("postgresql, postgres") == "postgresql, …"


@pytest.mark.parametrize("line", ["password: password", "password = 'password'", "password=$ecret123", "a_token=token"])
def test_a_secret_that_only_looks_like_a_reference_is_hidden(line: str) -> None:
    assert "…" in secrets.hide(line)


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
        ("http://host/x?key=abc&monkey=b;c&api_token=c#d", "http://host/x?key=…&monkey=…;=…&api_token=…"),
        ("postgresql://user:pa/ss@host/db", "postgresql://host/db"),
        ("postgresql://user:pa?s#s@host/db?user=u&password=x", "postgresql://host/db?user=…&password=…"),
        ("postgresql://user:p w@host/db", "postgresql://host/db"),
        ("user:pw@host:5000", "host:5000"),
        ("http://host/#/experiments/1?workflowType=x", "http://host/#/experiments/1?workflowType=x"),
        ("http://host/a;password=x/b;c=d?e=f", "http://host/a;password=…/b;c=…?e=…"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_login(text: str, shown: str) -> None:
    assert secrets.without_login(text) == shown


FORMS = {
    "password: {}": " '\"@,;:([{=\\",
    "+passphrase = {}": " '\"@,;:([{=\\",
    'password = "{}"': " '@,;:([{=)",
    "{{'api_key': '{}', 'a': 1}}": ' "@,;:([{=)',
    "x(user=me,password={})": "'\"@,;:=\\",
    "run --password {} --now": "'\"@,;:=\\",
    "Authorization: Bearer {}": "'\"@,;:=\\",
    "password:{}": "'\"@,;:=\\",
    "cannot open postgresql://me:{}@host/db": " '\"@,;:([{=<\\/?#",
    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----": " '\"@,;:([{=\\\n",
}
"""How a secret is written, and which signs it may hold there besides letters and digits."""


@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_no_secret_is_left_in_any_form(data: st.DataObject, form: str) -> None:
    secret = data.draw(st.text(st.sampled_from(f"ab1{FORMS[form]}"))) + VALUE
    assume(
        not secret.startswith("-") and not ('"' in secret[:3] and form.startswith(("x(", "run", "Auth", "password:")))
    )
    hidden = secrets.hide(form.format(secret))
    assert VALUE not in hidden
    assert "…" in hidden


WORDS = st.sampled_from(
    ["lr", "x", "print(x)", "names[0]", "1.5e-3", "-7", "/home/me/run.log", "a=1", "b:2", "if", "'text'"]
)


@given(st.lists(WORDS, max_size=9))
def test_ordinary_text_is_left(words: list[str]) -> None:
    assert secrets.hide(" ".join(words)) == " ".join(words)


SPECIAL = st.text(st.sampled_from("ab1:/?#@ %&=;"), min_size=1)


@given(user=st.text(st.sampled_from("ab1"), min_size=1), password=SPECIAL)
def test_no_password_is_shown_whatever_it_holds(user: str, password: str) -> None:
    address = f"postgresql://{user}:{password}@host:5432/db"
    assert secrets.without_login(address) == "postgresql://host:5432/db"
    assert secrets.first({"a": address}) == "a"


@given(user=SPECIAL, password=SPECIAL, host=st.sampled_from(["host", "::1"]), name=st.sampled_from(["db", ""]))
def test_what_is_shown_of_an_address_is_what_sqlalchemy_reads_of_it(
    user: str, password: str, host: str, name: str
) -> None:
    url = URL.create("postgresql", user, password, host, 5432, name, {"sslmode": "require"})
    shown = make_url(secrets.without_login(url.render_as_string(hide_password=False)))
    assert shown == URL.create("postgresql", host=host, port=5432, database=name, query={"sslmode": "…"})
