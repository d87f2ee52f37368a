"""The server gives reports and nothing else, to this machine's browsers only."""

import errno
import http.client
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from report_fixtures import make_run, make_sweep, track

from mnist_exp.disk import plan
from mnist_exp.ui import overview
from mnist_exp.ui.mlflow import MLflow
from mnist_exp.ui.server import Server

SWEEP = "sweeps/2026-01-31/10-00-00-abcdef"
Get = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def sweep() -> Path:
    """A sweep with a report and a secret beside it, and a single run without."""
    home = make_sweep(Path("outputs"), [["hidden=8"], ["hidden=16"]])
    make_run(home / "0", ["hidden=8"], 0.9)
    make_run(home / "1", ["hidden=16"], None, state="failed", reason="<script>alert(1)</script>")
    (home / "report.html").write_text("the report")
    (home / "data-x").mkdir()
    (home / "data-x" / "report.html").write_text("of one dataset")
    make_run(Path("outputs/runs/2026-01-31/11-00-00-abcdef"), ["hidden=<b>"], 0.8)
    Path("secret.html").write_text("secret")
    return home


@pytest.fixture
def get(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Get]:
    """`get("/", Host="other")`: what the server answers."""
    monkeypatch.setattr(overview, "SPARING", 0)
    server = Server(0, Path("outputs"), MLflow(wanted=False))
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()

    def ask(path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request(method, path, headers=headers)
        return connection.getresponse()

    yield ask
    server.shutdown()
    server.server_close()


def test_the_first_page_leads_to_what_is_there(get: Get) -> None:
    answer = get("/")
    text = answer.read().decode()
    assert answer.status == 200
    assert f'<a href="/{SWEEP}/report.html">hidden</a>' in text
    assert "1 of 2 finished, 1 failed" in text
    assert "val 90.00 % hidden=8" in text
    assert "python -m mnist_exp.report 11-00-00-abcdef" in text  # it has no page
    assert "hidden=&lt;b&gt;" in text
    assert "<script" not in text
    assert "http://127.0.0.1" not in text  # nothing is tracked
    policy = str(answer.headers["Content-Security-Policy"])
    assert policy.startswith("default-src 'none'; ")
    assert "script-src" not in policy


def test_a_report_is_given_with_the_network_off(get: Get) -> None:
    for path, text in (("report.html", b"the report"), ("data-x/report.html", b"of one dataset")):
        answer = get(f"/{SWEEP}/{path}")
        assert (answer.status, answer.read()) == (200, text)
        assert "default-src 'none'" in str(answer.headers["Content-Security-Policy"])
        assert "http" not in str(answer.headers["Content-Security-Policy"])
    head = get(f"/{SWEEP}/report.html", "HEAD")
    assert (head.status, head.headers["Content-Length"], head.read()) == (200, "10", b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.html",
        "/secret.html",
        f"/{SWEEP}/../../../../secret.html",
        f"/{SWEEP}/%2e%2e/report.html",
        "/sweeps/%2e%2e/%2e%2e/report.html",
        "/sweeps/..%2f..%2f/x/report.html",
        f"/{SWEEP}/sweep.json",
        f"/{SWEEP}/0/ledger.json",
        f"/{SWEEP}/",
        f"/{SWEEP}/report.html/",
        f"/{SWEEP}%00/report.html",
        f"/{SWEEP}/report.html%00",
        f"/{SWEEP.replace('/', '%5c')}/report.html",
        f"//{SWEEP}",
        "/etc/passwd",
        "//etc/passwd",
        "/sweeps/2026-01-31/linked/report.html",
        "/sweeps/2026-01-31/link/report.html",
        "/sweeps/linked-day/link/report.html",
        "/sweeps/2026-01-31/a-folder/report.html",
    ],
)
def test_nothing_else_is_given(path: str, get: Get, sweep: Path) -> None:
    (sweep.parent / "linked").mkdir()
    (sweep.parent / "linked" / "report.html").symlink_to(Path("secret.html").resolve())
    Path("elsewhere/link").mkdir(parents=True)
    Path("elsewhere/link/report.html").write_text("secret")
    (sweep.parent / "link").symlink_to(Path("elsewhere/link").resolve())
    (sweep.parent.parent / "linked-day").symlink_to(Path("elsewhere").resolve())
    (sweep.parent / "a-folder" / "report.html").mkdir(parents=True)
    answer = get(path)
    assert answer.status == 404
    assert b"secret" not in answer.read()


def test_links_are_not_listed(get: Get, sweep: Path) -> None:
    (sweep.parent / "09-00-00-ffffff").symlink_to(sweep.resolve())
    assert "09-00-00-ffffff" not in get("/").read().decode()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:127", "", "[::1]:80"])
def test_a_site_that_has_taken_over_the_address_gets_nothing(host: str, get: Get) -> None:
    answer = get("/", Host=host)
    assert answer.status == 403
    assert b"hidden" not in answer.read()


def test_it_answers_to_both_names_of_this_machine_at_any_port(get: Get) -> None:
    for host in ("localhost:8001", "127.0.0.1", "LOCALHOST"):  # a tunnel has its own
        assert get("/", Host=host).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_only_shows(method: str, get: Get) -> None:
    assert get("/", method).status == 501


def test_what_runs_is_listed_as_running_and_changes_are_seen(get: Get, sweep: Path) -> None:
    assert "running" not in get("/").read().decode().replace(".running", "")
    with plan.hold(sweep):
        text = get("/").read().decode()
        assert '<span class="running">running</span>: 1 of 2 finished' in text
    assert '<span class="running">' not in get("/").read().decode()
    (sweep / "report.html").unlink()
    assert f"python -m mnist_exp.report {sweep.name}" in get("/").read().decode()


def test_a_damaged_sweep_hides_no_other(get: Get, sweep: Path) -> None:
    other = sweep.with_name("12-00-00-abcdef")
    other.mkdir()
    (other / "sweep.json").write_text("{")
    text = get("/").read().decode()
    assert text.index("1 of 2 finished") < text.index("sweep.json is damaged")  # whatever its name


def test_newest_first(get: Get) -> None:
    for number, name in ((3, "a"), (1, "b"), (2, "c")):
        make_run(Path("outputs/runs/2026-01-31") / name, [f"hidden={number}"], 0.5, order=2_000_000_000_000 + number)
    text = get("/").read().decode()
    assert text.index("hidden=3") < text.index("hidden=2") < text.index("hidden=1<")


def test_a_configured_server_is_linked(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    track(sweep, "a" * 32)
    (sweep / "mlflow.json").write_text('{"experiment_id": "7", "page": "#/experiments/7/runs?x=1&y"}')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:word@lab:5000/")
    text = request.getfixturevalue("get")("/").read().decode()
    assert '<a href="http://lab:5000/#/experiments/7/runs?x=1&amp;y">MLflow</a>' in text
    assert "word" not in text


@pytest.mark.not_on("win32", "it has no such names")
@pytest.mark.parametrize("name", [b"a\nb", b"%2e%2e", b"no text \xff", b"<img src=x>", b"\x1b[31m", b"a?b#c", b"'\""])
def test_a_folder_of_any_name_is_shown_and_led_to(name: bytes, get: Get, sweep: Path) -> None:
    os.rename(os.fsencode(sweep), os.path.join(os.fsencode(sweep.parent), name))  # noqa: PTH104, PTH118
    text = get("/").read().decode()
    assert "1 of 2 finished" in text
    assert not {"<img", "\x1b"} & set(re.findall("<img|\x1b", text))
    (page,) = set(re.findall(r'href="(/[^"]*)"', text))
    assert get(page).read() == b"the report"


@pytest.mark.not_on("win32", "it has no pipes")
@pytest.mark.parametrize("kind", ["pipe", "holes"])
@pytest.mark.parametrize("entry", ["sweep.json", "0/ledger.json", "mlflow.json", ".lock", "report.html"])
def test_no_page_waits_for_a_pipe_or_fills_the_memory(kind: str, entry: str, get: Get, sweep: Path) -> None:
    (sweep / entry).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(sweep / entry)
    else:
        (sweep / entry).touch()
        os.truncate(sweep / entry, 2**36)
    text = get("/").read().decode()
    assert "11-00-00-abcdef" in text  # the single run
    assert ("is damaged: it is a folder, a pipe" in text) == ((entry, kind) == ("sweep.json", "holes"))
    if entry == "report.html":
        assert get(f"/{SWEEP}/{entry}").status == 404


def test_a_folder_of_another_user_hides_no_other(get: Get, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(folder: Path) -> bool:
        if folder.name == sweep.name:
            raise PermissionError(errno.EACCES, "Permission denied", f"{folder}/.lock")
        return False

    monkeypatch.setattr(overview.records, "held", held)
    text = get("/").read().decode()
    assert f"{SWEEP}/.lock cannot be read: Permission denied." in text
    assert "hidden=&lt;b&gt;" in text
