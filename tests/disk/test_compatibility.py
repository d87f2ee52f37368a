"""What earlier formats have left still loads; `tests/assets/make.py` made it."""

import gzip
import shutil
from collections import Counter
from pathlib import Path

import pytest
import trainings
from hydra.utils import get_class

from mnist_exp import config
from mnist_exp.disk import checkpoint, journal, lanes, ledger, plan
from mnist_exp.report.board import compare
from mnist_exp.report.page import write
from mnist_exp.results import names as naming
from mnist_exp.results import query as search
from mnist_exp.results import table as table_of
from mnist_exp.run import export
from mnist_exp.search import study as studies
from mnist_exp.search.analysis import analyse
from mnist_exp.tracking import runs
from mnist_exp.tracking.store import open_store

ASSETS = Path(__file__).parents[1] / "assets"
FORMATS = sorted(path.name for path in ASSETS.glob("format-*"))


@pytest.fixture(params=FORMATS)
def sweep(request: pytest.FixtureRequest) -> Path:
    """A copy of a sweep of one run, in this test's folder; its store beside it."""
    shutil.copytree(ASSETS / request.param / "sweep", "sweep")
    Path("mlflow.db").write_bytes(gzip.decompress((ASSETS / request.param / "mlflow.db.gz").read_bytes()))
    return Path("sweep")


def test_the_format_of_today_is_among_them() -> None:
    records = (ledger.Ledger, plan.Plan, studies.Search, lanes.PackRecord)
    assert f"format-{max(checkpoint.FORMAT, *(record.format for record in records))}" in FORMATS


def test_its_records_are_read(sweep: Path) -> None:
    assert plan.read(sweep).id == "sweep"
    assert ledger.read(sweep / "0").state == "finished"
    assert [row["epoch"] for row in journal.read(sweep / "0")] == [1, 2]
    state = checkpoint.load_last(sweep / "0" / "checkpoints")
    assert state is not None
    assert (state.epoch, len(state.history)) == (2, 2)
    table = table_of.frame(naming.resolve(sweep))
    assert list(table["state"]) == ["finished"]


def test_its_run_goes_on(sweep: Path) -> None:
    settings = config.load(sweep / "0" / "config.yaml")
    export.restore(settings, sweep / "0")
    before = (sweep / "0" / "metrics.jsonl").read_text()
    settings.epochs, settings.force = 3, True  # the code has changed since, so force is needed
    assert trainings.run(settings, sweep / "0", extras=False).state == "finished"
    assert (sweep / "0" / "metrics.jsonl").read_text().startswith(before)
    assert len(journal.read(sweep / "0")) == 3


def test_its_study_is_read_and_goes_on(sweep: Path) -> None:
    search = studies.read(sweep)
    (trial,) = studies.read_only(sweep, search).trials
    assert (trial.number, trial.state.name, list(trial.params)) == (0, "COMPLETE", ["lr"])
    assert list(trial.intermediate_values) == [1, 2]
    analysis = analyse(sweep)
    assert analysis is not None
    assert (analysis.front, analysis.problem) == ([0], "")
    assert studies.lead(sweep, search, {}, again=True).ask().number == 1


def test_its_pack_record_is_read(sweep: Path) -> None:
    record = lanes.read(sweep / "0")
    assert record is not None
    assert (record.lane, len(record.lanes)) == (0, 2)
    assert record.fits(config.load(sweep / "0" / "config.yaml"))


def test_its_store_is_read_and_goes_on(sweep: Path) -> None:
    uri = f"sqlite:///{Path('mlflow.db').absolute()}"
    (stored,) = search.runs(search.Query(uri, experiment_id=search.experiments(uri)["old"]))
    assert stored.status == "FINISHED"
    store = open_store(uri, "old")
    entry = ledger.read(sweep / "0")
    entry.id += "0"  # the same run again, as a new one
    entry.write(sweep / "0")
    assert runs.publish(sweep / "0", store)
    both = store.client.search_runs([store.experiment_id])
    assert [each.info.status for each in both] == ["FINISHED"] * 2
    steps = Counter(metric.step for metric in store.client.get_metric_history(both[0].info.run_id, "train/loss"))
    assert steps == {1: 1, 2: 1}


def test_its_config_has_the_fingerprint_that_it_had(sweep: Path) -> None:
    settings = config.load(sweep / "0" / "config.yaml")
    assert ledger.read(sweep / "0").fingerprint["config"] == config.fingerprint(settings)
    settings.data.num_classes = 11
    assert ledger.read(sweep / "0").fingerprint["config"] != config.fingerprint(settings)


@pytest.mark.integration
def test_it_writes_a_report(sweep: Path) -> None:
    page = write(compare(naming.resolve(sweep)))
    assert page == sweep / "report.html"
    assert "Leaderboard" in page.read_text(encoding="utf-8")
    assert (sweep / "runs.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    "name",
    [
        *(f"mnist_exp.models.{each}" for each in ("MLP", "FiveConvCNN", "SimardCNN", "SmallCNN", "StrongCNN")),
        *(f"mnist_exp.engine.schedules.{each}" for each in ("Constant", "Cosine", "Exponential")),
        *(f"mnist_exp.engine.schedules.{each}" for each in ("Linear", "OneCycle", "Step")),
        *("mnist_exp.engine.muon.Muon", "mnist_exp.data.augment.Warp"),
        *(f"mnist_exp.run.callbacks.{each}" for each in ("MacroF1", "ONNX", "TensorBoard")),
    ],
)
def test_what_runs_have_stored_as_a_target_is_still_there(name: str) -> None:
    """A run resumes from its own config: a class that has moved keeps the name under which runs know it."""
    assert get_class(name).__name__ == name.rpartition(".")[2]
