"""The page: what it shows, what it must never do, and that odd sweeps do not break it."""

import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import trainings
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from report_fixtures import make_run, make_sweep, track, write_report

from mnist_exp import config, results
from mnist_exp.charts import network, style
from mnist_exp.charts import sweep as figures
from mnist_exp.console.terminal import on_page
from mnist_exp.disk.files import read_json, write_json
from mnist_exp.errors import ConfigError, DataError, DivergedError
from mnist_exp.evaluate import answers as best
from mnist_exp.report import board as leaderboard
from mnist_exp.report import explore
from mnist_exp.report import page as html
from mnist_exp.report.__main__ import main as command
from mnist_exp.results import names
from mnist_exp.tracking.store import Store

VEGA = (Path(html.__file__).parent / "vega.js").read_text(encoding="utf-8")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def grid(root: Path, hidden: int, lrs: int, seeds: int, epochs: int = 3) -> Path:
    """A sweep of hidden × lr × seed without weights; the highest lr fails."""
    points = [
        [f"hidden={16 * 2**h}", f"lr={10.0 ** (lr - 4):g}", f"seed={s}"]
        for h in range(hidden)
        for lr in range(lrs)
        for s in range(seeds)
    ]
    folder = make_sweep(root, points)
    for i, point in enumerate(points):
        if point[1] == f"lr={10.0 ** (lrs - 5):g}":
            make_run(folder / str(i), point, None, state="failed", reason="diverged")
        else:
            make_run(folder / str(i), point, 0.9 + 0.0007 * (i % 97), epochs=epochs, parameters=1000 * (1 + i % 5))
    return folder


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


class Loads(HTMLParser):
    """Collects whatever a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            fetches = name in ("src", "srcset", "data", "poster", "background", "xlink:href") or (
                name == "href" and tag != "a"
            )
            if fetches and value and not value.startswith(("data:", "#")):
                self.requests.append(f"{tag} {name}={value}")


@pytest.mark.integration
def test_a_whole_sweep(tmp_path: Path) -> None:
    folder = grid(tmp_path / "outputs", 3, 3, 2)
    track(folder / "0", "a" * 32)
    text = page_of(folder)
    assert "http://127.0.0.1:5000/#/experiments/7/runs/" + "a" * 32 in text
    for word in ("What varies", "Leaderboard", "Failures", "Learning curves", "What accuracy costs", "All 18 runs"):
        assert word in text
    assert "python -m mnist_exp.train hidden=16 lr=0.01 seed=0" in text
    for name in ("leaderboard.csv", "runs.csv", "figures/curves.csv", "figures/heat_map_lr_hidden.svg"):
        assert (folder / name).stat().st_size > 100
    assert re.search(r"Report written 20\d\d-\d\d-\d\d \d\d:\d\d\.", text)
    board = pd.read_csv(folder / "leaderboard.csv")
    assert list(board.columns[:2]) == ["hidden", "lr"]
    assert len(board) == 9
    assert len(pd.read_csv(folder / "figures" / "curves.csv")) == 12 * 3


@pytest.mark.integration
def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    text = page_of(grid(tmp_path, 2, 2, 1))
    loads = Loads()
    loads.feed(text)
    assert loads.requests == []
    assert "default-src 'none'" in text
    assert "unsafe-eval" not in text
    text = text.replace(VEGA, "")  # whose requests tests/services/test_browser.py counts
    assert not re.search(r"url\((?!#)|@import", text)


def test_meta_a_fetch_would_be_found() -> None:
    loads = Loads()
    loads.feed('<a href="http://x"></a><link href="http://x"><img src="http://x">')
    assert len(loads.requests) == 2


@pytest.mark.integration
def test_every_picture_has_a_text(tmp_path: Path) -> None:
    text = page_of(grid(tmp_path, 2, 2, 2)).replace(VEGA, "")
    assert text.count("<svg") == len(re.findall(r'role="img" aria-label="[^"]{20,}', text)) >= 8
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` or `#rgb`, as WCAG 2 has it."""
    digits = colour.removeprefix("#")
    pairs = [2 * digit for digit in digits] if len(digits) == 3 else [digits[i : i + 2] for i in (0, 2, 4)]
    parts = [int(pair, 16) / 255 for pair in pairs]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["text", "soft", "link", "bad"])
@pytest.mark.parametrize("paper", ["page", "card"])
def test_text_can_be_read_in_light_and_dark(scheme: int, ink: str, paper: str) -> None:
    """At least 4.5 to 1, as WCAG 2 asks for at level AA."""
    css = (Path(html.__file__).parent / "report.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#\w+);", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]))
    assert contrast(colours[ink], colours[paper]) >= 4.5


def test_meta_contrast() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.integration
def test_hostile_text_stays_text(tmp_path: Path) -> None:
    points = [[f"optimizer={HOSTILE}{i}", "hidden=64"] for i in range(3)]
    folder = make_sweep(tmp_path, points)
    make_run(folder / "0", points[0], 0.9)
    make_run(folder / "1", points[1], None, state="failed", reason=HOSTILE)
    make_run(folder / "2", points[2], 0.8)
    (folder / "0" / "config.yaml").write_text(f"hidden: 64\nname: x\nmodel: {{'{HOSTILE.replace(chr(39), '')}': 1}}\n")
    text = page_of(folder)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_long_text_is_shown_short_and_kept_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two settings that differ in the middle only stay two, in pictures and figures, too."""
    texts = [f"{'a' * 5000}{middle}{'b' * 5000}" for middle in "12"]
    home = make_sweep(tmp_path, [[f"model.note={text}"] for text in texts])
    for number, text in enumerate(texts):
        make_run(home / str(number), [f"model.note={text}"], 0.9 + number / 100)
    command([str(home)])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 300
    page = (home / "report.html").read_text()
    for text in texts:
        assert f'<span title="{text}">' in page
        assert text in (home / "leaderboard.csv").read_text()
        assert not any(text in picture.read_text() for picture in (home / "figures").glob("*.svg"))
    outside = re.sub(r'title="[^"]*"|<script.*?</script>', "", page, flags=re.DOTALL)
    assert max(map(len, re.findall(r">([^<]+)<", outside))) < 10_000
    command([str(home), "--json", "--no-html"])
    assert texts[0] in capsys.readouterr().out


@pytest.mark.parametrize("lacking", ["val/accuracy", "val/loss", "train/accuracy", "train/loss"])
def test_rows_that_lack_what_is_drawn_are_not_drawn(lacking: str, tmp_path: Path) -> None:
    home = make_sweep(tmp_path, [["lr=1"], ["lr=2"]])
    for number in range(2):
        make_run(home / str(number), [f"lr={number + 1}"], 0.9)
    path = home / "0" / "metrics.jsonl"
    path.write_text(path.read_text().replace(f'"{lacking}"', '"other"'))
    command([str(home)])
    assert (home / "report.html").exists()


def test_passwords_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example")
    address = "tracking.uri=postgresql://me:secret@host/db"
    folder = make_sweep(tmp_path, [["lr=0.1", address]] * 2)
    track(make_run(folder / "0", ["lr=0.1", address], None, state="failed", reason="no"), "b" * 32)
    text = page_of(folder)
    assert "secret" not in text
    assert 'href="https://mlflow.example/#/experiments/7/runs/' in text


def many_keys(root: Path, keys: int, runs: int, epochs: int = 3) -> Path:
    """A sweep of so many keys, each with two values in turn, and of so many runs."""
    points = [[f"optimizer.key_{k}={1 + (i >> k) % 2}" for k in range(keys)] for i in range(runs)]
    folder = make_sweep(root, points)
    for i, point in enumerate(points):
        make_run(folder / str(i), point, 0.9 + 0.0007 * i, epochs=epochs, parameters=1000 * (1 + i))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("keys", [0, 8], ids=["grid", "eight-keys"])
def test_a_hundred_runs_stay_below_three_megabytes(keys: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pictures of the best run: twenty mistakes and 64 units that are noise, which nothing compresses."""
    folder = many_keys(tmp_path, keys, 100, epochs=60) if keys else grid(tmp_path, 5, 5, 4, epochs=60)
    for run_folder in folder.glob("*/"):
        (run_folder / "weights.safetensors").touch()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 1, 28, 28))
    answers = best.Answers(
        images, rng.integers(0, 10, 200), rng.dirichlet([1] * 10, 200), rng.normal(size=(99, 28, 28))
    )
    monkeypatch.setattr(best, "answers", lambda folder, digest: answers)
    page = write_report(folder)
    text = page.read_text(encoding="utf-8")
    assert "Most confident mistakes" in text
    assert "First layer, 64 of 99 units" in text
    assert page.stat().st_size < 3_000_000


@pytest.mark.integration
def test_any_two_of_the_four_leading_keys_have_their_map(tmp_path: Path) -> None:
    folder = many_keys(tmp_path, 5, 32)
    text = page_of(folder)
    pairs = list(itertools.combinations(range(1, 5), 2))  # the first explains least
    for y, x in pairs:
        assert f"optimizer.key_{x} × optimizer.key_{y}" in text
    assert len(list((folder / "figures").glob("heat_map_*.svg"))) == len(pairs)


@pytest.mark.integration
def test_the_page_leads_to_the_saved_view_of_the_sweep(tmp_path: Path) -> None:
    folder = grid(tmp_path, 1, 2, 1)
    track(folder / "0", "a" * 32)
    (folder / "mlflow.json").write_text('{"experiment_id": "7"')  # torn
    assert "all runs of the sweep" not in page_of(folder)
    (folder / "mlflow.json").write_text('{"page": "#/experiments/7/runs?viewStateShareKey=x&a=b"}')
    address = "http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=x&amp;a=b"
    assert f'<a href="{address}">all runs of the sweep</a>' in page_of(folder)


@pytest.mark.integration
def test_the_page_waits_for_mlflow_when_all_is_drawn(tmp_path: Path) -> None:
    folder = grid(tmp_path, 1, 2, 1)

    def publish() -> None:
        assert list((folder / "figures").glob("*.svg"))
        assert not (folder / "report.html").exists()
        track(folder / "0", "a" * 32)
        (folder / "mlflow.json").write_text('{"page": "#/view"}')

    page = html.write(leaderboard.compare(names.resolve(folder)), wait=publish).read_text()
    best = f"http://127.0.0.1:5000/#/experiments/7/runs/{'a' * 32}?workflowType=machine_learning"
    assert f'<td><a href="{best}">0</a></td>' in page
    assert '<a href="http://127.0.0.1:5000/#/view">all runs of the sweep</a>' in page
    assert list(pd.read_csv(folder / "runs.csv")["run_id"].fillna("")) == ["a" * 32, ""]


@pytest.mark.integration
def test_failed_cells_are_hatched(tmp_path: Path) -> None:
    table = results.load(grid(tmp_path, 2, 3, 2))
    picture = figures.heat_map(table, "lr", "hidden", "val")
    hatched = [patch for patch in picture.figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 2
    assert "4 of 12 runs failed" in picture.alt
    assert "<pattern" in style.svg(picture)


@pytest.mark.integration
def test_a_picture_is_the_same_each_time(tmp_path: Path) -> None:
    table = results.load(grid(tmp_path, 2, 3, 1))
    one, two = (style.svg(figures.heat_map(table, "lr", "hidden", "val")) for _ in range(2))
    assert one == two
    assert style.INK not in style.inline(one)


@pytest.mark.integration
def test_a_random_search_is_drawn_as_points(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = [[f"hidden={rng.integers(16, 512)}", f"lr={10 ** rng.uniform(-4, -1):.6f}"] for _ in range(20)]
    folder = make_sweep(tmp_path, points)
    for i, point in enumerate(points):
        make_run(folder / str(i), point, float(rng.uniform(0.8, 0.9)))
    text = page_of(folder)
    assert "lr × hidden" in text
    assert "explains" not in text.replace("How much of the variance a setting explains", "")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["finished"], "1 of 1"),
        (["failed"], "0 of 1"),
        (["failed", "failed", "failed"], "0 of 3"),
        (["finished", "killed", "planned"], "Not complete"),
        (["finished", "pruned", "finished"], "2 of 3"),
        (["planned", "planned"], "Go on with"),
    ],
)
def test_odd_sweeps(tmp_path: Path, states: list[str], expected: str) -> None:
    points = [[f"lr={10.0**-i:g}"] for i in range(len(states))]
    folder = make_sweep(tmp_path, points)
    for i, state in enumerate(states):
        if state != "planned":
            make_run(folder / str(i), points[i], None if state == "failed" else 0.9, state=state)
    assert expected in page_of(folder)


@pytest.mark.integration
def test_list_values_and_one_seed(tmp_path: Path) -> None:
    points = [[f"hidden={hidden}", f"model.dropout={p}"] for hidden in ("64", "[64,32]") for p in ("0", "0.5")]
    folder = make_sweep(tmp_path, points)
    for i, point in enumerate(points):
        make_run(folder / str(i), point, 0.9 + 0.01 * i)
    text = page_of(folder)
    assert "[64,32]" in text
    assert "fewer than three seeds" in text
    assert "±" not in "".join(re.findall(r'<td class="number" data-value="[^"]*">([^<]*)</td>', text))


@pytest.mark.integration
def test_without_validation(tmp_path: Path) -> None:
    for i in range(3):
        make_run(tmp_path / str(i), [f"lr={10.0**-i:g}"], 0.9 + 0.01 * i, splits=("train", "test"))
    text = page_of(tmp_path)
    assert "Ordered by training accuracy" in text
    assert "Validation loss" not in text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real sweep: two learning rates on synthetic digits, one of which diverges."""
    config.register()
    points = [["lr=1e-3"], ["lr=1e30"]]
    folder = make_sweep(tmp_path_factory.mktemp("trained"), points)
    for i, point in enumerate(points):
        overrides = [*point, "data=synthetic", "optimizer=sgd", "hidden=8", "epochs=1", "checkpoint.model=false"]
        with initialize_config_dir(config.conf_dir(), version_base="1.3"):
            settings = config.parse(compose("train", overrides=overrides))
        if i == 0:
            trainings.run(settings, folder / str(i), overrides)
        else:
            with pytest.raises(DivergedError):
                trainings.run(settings, folder / str(i), overrides)
    return folder


@pytest.mark.integration
def test_the_best_run_of_a_real_sweep(trained: Path) -> None:
    text = page_of(trained)
    for word in ("The best run", "Confusion matrix", "Most confident mistakes", "First layer, 8 of 8 units"):
        assert word in text
    matrix = pd.read_csv(trained / "figures" / "confusion.csv").to_numpy()
    assert matrix.sum() == 500
    accuracy = results.load(trained).loc[0, "final/test_accuracy"]
    assert np.trace(matrix) / 500 == pytest.approx(accuracy)


@pytest.mark.integration
def test_the_page_looks_closely_at_the_median_run_of_the_best_setting(tmp_path: Path) -> None:
    points = [[f"hidden={hidden}", f"seed={seed}"] for hidden in (8, 16) for seed in range(3)]
    folder = make_sweep(tmp_path, points)
    for i, accuracy in enumerate((0.99, 0.5, 0.6, 0.80, 0.82, 0.81)):
        make_run(folder / str(i), points[i], accuracy)
    text = page_of(folder)
    sentence = "Of the best setting (<code>hidden=16</code>) the median run by validation accuracy: number 5, seed 2."
    assert sentence in text
    assert "Folder: <code>sweeps/2026-01-31/10-00-00-abcdef/5</code>" in text
    assert text.index("<td>16</td>") < text.index("<td>8</td>")


@pytest.mark.integration
def test_each_dataset_has_its_own_page(tmp_path: Path) -> None:
    """Where there was one dataset before, its own files are gone."""
    points = [["data=mnist", "hidden=8"], ["data=mnist", "hidden=16"], ["data=kanji", "hidden=8"]]
    folder = make_sweep(tmp_path, points[:2])
    for i, point in enumerate(points):
        make_run(folder / str(i), point, 0.9 + i / 100)
    assert "Leaderboard" in page_of(folder)
    plan = read_json(folder / "sweep.json")
    write_json(folder / "sweep.json", plan | {"points": points})
    text = page_of(folder)
    assert re.findall(r'<a href="(.*)">(.*)</a>', text) == [
        ("data-mnist/report.html", "mnist"),
        ("data-kanji/report.html", "kanji"),
    ]
    assert "hidden=16 did best: validation accuracy 91.00 %, test accuracy 91.00 %; how sure that is" in text
    assert not [path.name for path in folder.glob("*.csv")]
    for name, runs, title in (("mnist", 2, "hidden"), ("kanji", 1, "hidden=8")):
        assert len(pd.read_csv(folder / f"data-{name}" / "runs.csv")) == runs
        page = (folder / f"data-{name}" / "report.html").read_text(encoding="utf-8")
        assert f"<h1>{title} on {name}</h1>" in page
    elsewhere = tmp_path / "mail" / "page.html"
    elsewhere.parent.mkdir()
    command([str(folder), "--out", str(elsewhere)])
    (first, _) = re.findall(r'<a href="(.*)">', elsewhere.read_text(encoding="utf-8"))
    assert (elsewhere.parent / first).resolve() == (folder / "data-mnist" / "report.html").resolve()


@pytest.mark.integration
def test_other_images_than_the_run_saw_are_refused(trained: Path) -> None:
    with pytest.raises(DataError, match="are not those of the run"):
        best.answers(trained / "0", "0" * 16)


@pytest.mark.integration
def test_without_weights_the_page_says_so(tmp_path: Path) -> None:
    assert "Its weights are not on this machine" in page_of(make_run(tmp_path / "r", ["lr=0.1"], 0.9))


def test_most_confused_pairs() -> None:
    matrix = np.diag([10] * 10)
    matrix[4, 9], matrix[9, 4] = 5, 2
    assert best.confused(matrix) == [(4, 9, 5, 5 / 15), (9, 4, 2, 2 / 12)]


def test_the_most_confident_mistake_comes_first() -> None:
    probabilities = np.full((3, 10), 0.01)
    probabilities[0, 1], probabilities[1, 2], probabilities[2, 3] = 0.6, 0.9, 0.95
    answers = best.Answers(np.zeros((3, 1, 28, 28)), np.array([0, 0, 3]), probabilities, None)
    assert list(answers.worst()) == [1, 0]


def test_first_layer_shows_the_largest_units() -> None:
    weights = np.ones((100, 28, 28)) * np.arange(100)[:, None, None]
    picture = network.first_layer(weights)
    assert picture.title == "First layer, 64 of 100 units"
    assert picture.figure.axes[1].get_ylabel() == "weight"  # what its colours are


def test_pareto_front() -> None:
    cost = pd.Series([1, 2, 3, 4, 2], index=list("abcde"))
    gain = pd.Series([0.5, 0.9, 0.8, 0.95, 0.85], index=list("abcde"))
    assert figures.pareto(cost, gain) == ["a", "b", "d"]


def test_explained_variance() -> None:
    accuracy = pd.Series([1.0, 1.0, 2.0, 2.0])
    assert figures.explained(accuracy, pd.Series(["a", "a", "b", "b"])) == (1.0, 0.0)
    assert figures.explained(accuracy, pd.Series(["a", "b", "a", "b"])) == (pytest.approx(-1 / 3), 1.0)
    assert figures.explained(accuracy, pd.Series(["a", "b", "c", "d"])) is None
    assert figures.explained(accuracy * 0, pd.Series(["a", "a", "b", "b"])) is None


def test_what_may_be_chance_is_not_called_explained(tmp_path: Path) -> None:
    """Six values of twelve random accuracies have 66 % of the sum of squares between them here, by chance alone."""
    accuracies = np.random.default_rng(2).normal(0.9, 0.01, 12)
    points = [[f"hidden={8 * (1 + i % 6)}", f"lr={0.2 if accuracies[i] > 0.9 else 0.1}"] for i in range(12)]
    folder = make_sweep(tmp_path, points)
    for i, point in enumerate(points):
        make_run(folder / str(i), point, float(accuracies[i]))
    table = results.load(folder)
    hidden, lr = (picture.alt for picture in figures.main_effects(table, ["hidden", "lr"], "val"))
    assert hidden == "Validation accuracy of 12 finished runs over hidden."
    assert re.fullmatch(r"Validation accuracy of 12 finished runs over lr: explains \d\d % of the variance\.", lr)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([64, 128, 256], "log"),
        ([1e-3, 3e-3, 1e-2], "log"),
        ([0.0, 0.1, 0.2], "linear"),
        ([1, 2, 1000], "order"),
        (["adam", "sgd"], "order"),
        ([64, "[64,32]"], "order"),
        ([True, False], "order"),
        ([7], "order"),
    ],
)
def test_axes_are_logarithmic_where_the_values_are(values: list[object], kind: str) -> None:
    scale = style.scale(pd.Series(values, dtype=object))
    assert scale.kind == kind
    assert len(scale.edges) == len(values) + 1
    assert (np.diff(scale.edges) > 0).all()


@pytest.mark.integration
def test_the_command_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = grid(tmp_path, 2, 2, 1)
    command([str(folder), "--out", "page.html"])
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (folder / "report.html").exists()
    assert "Report:\n  page.html" in capsys.readouterr().out


@pytest.mark.integration
def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    folder = grid(tmp_path, 1, 2, 1)
    with pytest.raises(ConfigError, match="cannot be written"):
        command([str(folder), "--out", "no/such/folder/page.html"])


def test_usage_errors_exit_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(["--no-html", "--out", "x"])
    assert caught.value.code == 2
    assert "--no-html" in capsys.readouterr().err


def test_an_address_without_login_is_left_alone() -> None:
    assert on_page("sqlite:///a.db and http://u:p@h:5000/x") == "sqlite:///a.db and http://…@h:5000/x"


def test_what_people_type_is_drawn_as_text_and_not_as_a_formula() -> None:
    @style.drawn
    def draw() -> style.Picture:
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label=r"tags.note=$\foo$")
        style.Scale([r"$\bar$", r"\frac{"], "order").label(axes, "x", r"$\key$")
        figure.legend()
        return style.Picture("p", "title", "alt", figure)

    page = style.svg(draw())
    assert all(text in page for text in (r"tags.note=$\foo$", r"$\bar$", r"\frac{", r"$\key$"))


@pytest.mark.integration
def test_of_many_runs_the_page_shows_the_best_and_says_where_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five settings with three seeds, and one that failed seven times."""
    for limit, number in {"ROWS": 4, "FAILURES": 6, "FILES": 3, "SEEDS": 2}.items():
        monkeypatch.setattr(html, limit, number)
    points = [[f"hidden={h}", f"seed={s}"] for h in range(1, 6) for s in range(3)] + [["hidden=9", "seed=0"]] * 7
    folder = make_sweep(tmp_path, points)
    for i, point in enumerate(points):
        failed = point[0] == "hidden=9"
        make_run(folder / str(i), point, None if failed else 0.9 + i / 1000, state="failed" if failed else "finished")
    asked: list[Path] = []
    history = results.history
    monkeypatch.setattr(results, "history", lambda run: asked.append(run["folder"]) or history(run))
    text = page_of(folder)
    assert [path.name for path in asked] == ["9", "12", "13"]  # two seeds of the best setting, one of the next
    assert list(pd.read_csv(folder / "figures" / "curves.csv")["run"].unique()) == [9, 12, 13]
    assert "Drawn are 3 of 22 runs: those of the best settings, of each the first 2 at most." in text
    home = str(folder.relative_to(tmp_path))
    assert f"The best 4 of 6 settings; all are in <code>{home}/leaderboard.csv</code>" in text
    assert f"All are in <code>{home}/runs.csv</code>" in text
    runs = text.partition("<summary>4 of 22 runs, those of the best settings</summary>")[2]
    assert re.findall(r"<td>(hidden=\d seed=\d)</td>", runs) == [
        "hidden=5 seed=0",
        "hidden=5 seed=1",
        "hidden=5 seed=2",
        "hidden=4 seed=0",
    ]
    assert "What 3 runs, at even distances, share" in text
    assert text.count('<dl class="failure">') == 6
    assert "And 1 more, which are in" in text
    assert len(pd.read_csv(folder / "runs.csv")) == 22
    assert len(pd.read_csv(folder / "leaderboard.csv")) == 6


@pytest.mark.integration
def test_runs_that_failed_do_not_count_among_those_that_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "SEEDS", 2)
    text = page_of(grid(tmp_path, 1, 2, 3))
    assert "Drawn are 2 of 6 runs" in text


def test_an_experiment_without_runs_is_a_sentence(mlflow_store: Callable[[str], Store]) -> None:
    mlflow_store("empty")
    with pytest.raises(ConfigError, match="Experiment empty has no runs"):
        write_report("empty")


@pytest.mark.integration
def test_a_few_runs_are_all_shown(tmp_path: Path) -> None:
    text = page_of(grid(tmp_path, 3, 3, 2))
    assert not re.findall(r"Drawn are|The best \d+ of|those of the best|All are in|at even distances", text)


@pytest.mark.integration
def test_a_column_without_an_entry_is_left_out(tmp_path: Path) -> None:
    """It cost the width that the last column needs in a window of 1,100 pixels."""
    for name, state, shown in (("whole", "finished", False), ("part", "failed", True)):
        folder = make_sweep(tmp_path / name, [["hidden=16"], ["hidden=32"]])
        make_run(folder / "0", ["hidden=16"], 0.9)
        make_run(folder / "1", ["hidden=32"], 0.8 if state == "finished" else None, state=state)
        assert ('<th scope="col">not finished</th>' in write_report(folder).read_text()) is shown


@pytest.mark.integration
def test_many_dots_are_pixels_and_few_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = results.load(grid(tmp_path, 2, 3, 2))
    few = [style.svg(picture) for picture in figures.main_effects(table, ["hidden", "lr"], "val")]
    monkeypatch.setattr(style, "MANY", 5)
    many = [style.svg(picture) for picture in figures.main_effects(table, ["hidden", "lr"], "val")]
    assert not any("<image" in text for text in few)
    assert all("<image" in text for text in many)


@pytest.mark.integration
@pytest.mark.parametrize("rates", [2, 12], ids=["cells", "points"])
def test_runs_without_a_key_have_no_place_in_its_pictures(rates: int, tmp_path: Path) -> None:
    """As a CNN has no `model.activation`."""
    activations = [["model.activation=relu"], ["model.activation=tanh"], []]
    points = [[*activation, f"lr={0.01 * n}"] for activation in activations for n in range(1, rates + 1)]
    folder = make_sweep(tmp_path, points)
    for i, point in enumerate(points):
        make_run(folder / str(i), point, accuracy=0.9 + i / 1000)
    assert page_of(folder).count("<svg") >= 3


@pytest.mark.integration
def test_what_accuracy_costs_is_drawn_of_several_settings_only(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, [["lr=0.1", "seed=0"], ["lr=0.1", "seed=1"]])
    for i in range(2):
        make_run(folder / str(i), ["lr=0.1", f"seed={i}"], 0.9)
    assert "What accuracy costs" not in page_of(folder)


@pytest.mark.integration
def test_pictures_for_a_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = grid(tmp_path / "outputs", 2, 3, 1)
    command([str(folder), "--figures", str(tmp_path / "paper")])
    kept = {path.stem for path in (folder / "figures").glob("*.svg")}
    for suffix, begins in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        written = list((tmp_path / "paper").glob(f"*{suffix}"))
        assert {path.stem for path in written} == kept
        assert all(path.read_bytes().startswith(begins) for path in written)
    with pytest.raises(SystemExit):
        command([str(folder), "--figures", "x", "--no-html"])
    assert "--no-html for none" in capsys.readouterr().err


def facts_of(text: str) -> Any:
    return json.loads(text.partition('id="facts">')[2].partition("</script>")[0])


@pytest.mark.integration
def test_the_figures_have_each_run_once(tmp_path: Path) -> None:
    points = [[f"lr={lr:g}", "optimizer=</script><b>"] for lr in (1e-4, 1e-3, 1e-2)]
    folder = make_sweep(tmp_path / "outputs", points)
    for i, point in enumerate(points[:2]):
        make_run(folder / str(i), point, 0.9 + 0.05 * i, epochs=100)
    make_run(folder / "2", points[2], None, state="failed", reason="</script>")
    text = page_of(folder)
    facts = facts_of(text)
    order = ["0.0001", "0.001", "0.01"]
    assert facts["keys"] == [{"name": "lr", "scale": "log", "order": order, "values": [0.0001, 0.001, 0.01]}]
    assert facts["runs"]["val"] == [90, 95, None]
    assert facts["runs"]["reason"] == ["", "", "</script>"]
    assert facts["runs"]["command"][2] == "python -m mnist_exp.train lr=0.01 'optimizer=</script><b>'"
    assert set(facts["curves"]) == {"0", "1"}
    assert len(facts["curves"]["0"]["epoch"]) == explore.EPOCHS
    assert facts["curves"]["0"]["epoch"][-1] == 100
    assert text.count("</script>") == 4  # three that run, and the facts


@pytest.mark.integration
def test_of_many_runs_the_figures_have_the_listed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "ROWS", 4)
    facts = facts_of(page_of(grid(tmp_path, 3, 3, 1)))
    assert len(facts["runs"]["val"]) == len(facts["keys"][0]["values"]) == 4
    assert len(facts["settings"]) == 4
    assert facts["runs"]["val"] == sorted(facts["runs"]["val"], reverse=True)


@pytest.mark.integration
def test_passwords_are_not_among_the_facts(tmp_path: Path) -> None:
    points = [[f"storage=postgresql://me:secret{i}word@host/db"] for i in range(2)]
    folder = make_sweep(tmp_path, points)
    for i, point in enumerate(points):
        make_run(folder / str(i), point, 0.9)
    facts = json.dumps(facts_of(page_of(folder)))
    assert "secret0word" not in facts
    assert "host/db" in facts
