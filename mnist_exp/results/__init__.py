"""From a name (last, best, an id) to runs, and to a table of them, for notebooks and reports.

    from mnist_exp import results
    runs = results.load()                                  # the last sweep; see `names` for other names
    runs.groupby("hidden")["final/val_accuracy"].mean()
    results.history(runs.iloc[0])                          # one row for each epoch

Reads files, or an MLflow store for an experiment: neither torch nor mlflow is loaded for a local one.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def load(what: str | Path = "last", root: Path = Path("outputs")) -> "pd.DataFrame":
    """One row for each run called *what*.

    Columns: the settings (`hidden`, `lr`, `optimizer.weight_decay` …) as numbers, truth values or text; `final/*`
    and `best/*` metrics (accuracies from 0 to 1); `state` (`planned`, `running`, `finished`, `failed`, `pruned`,
    `killed`, or `damaged` if its ledger cannot be read) with its `reason`; `seconds` of training, and
    `cpu_seconds`, the processor time of all its threads; `parameters` of the network; `started` and `ended` in UTC;
    `folder` (None for a run whose files are not on this machine), `overrides`, git's `commit`, with -dirty where files
    differed from it, `sweep`, and MLflow's `run_id`.

    Args:
        what: See `names`.
        root: The folder that holds `runs/` and `sweeps/`.

    Raises:
        ConfigError: nothing, or more than one thing, has that name.
        ExperimentError: a file or the store cannot be read.
    """
    from mnist_exp.results import names, table  # pandas: not for --help

    return table.frame(names.resolve(what, root))


def history(run: "pd.Series[Any]") -> "pd.DataFrame":
    """One row for each epoch of *run*, a row of `load`: `epoch`, `step` and the metrics.

    Empty for a run that has finished no epoch, or whose files are not on this machine.
    """
    import pandas as pd

    from mnist_exp.disk import journal

    rows = journal.read(run["folder"]) if run["folder"] is not None else []
    return pd.DataFrame([{"epoch": row["epoch"], "step": row["step"], **row["metrics"]} for row in rows])
