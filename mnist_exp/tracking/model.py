"""A run's exported network as an MLflow model, logged without importing torch.

`mlflow.pytorch.log_model` would trace the network anew in this process: five seconds, most of them imports.
The run has exported it already (`model.pt2`); this adds MLflow's description of that file.
"""

import logging
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from mnist_exp.config import Data
from mnist_exp.disk.provenance import torch_version
from mnist_exp.disk.tracked import TrackedRun
from mnist_exp.tracking.store import Store, despite

FOREIGN = "%s is not below outputs/runs or outputs/sweeps: no model of it was registered as %s."


def log(exported: Path, data: Data, store: Store, run_id: str) -> str:
    """Logs the file *exported*, for images of *data*, as the model of *run_id*; returns its URI.

    `mlflow.pytorch.load_model`, `mlflow models predict` and `mlflow models serve` take it from there.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    logged = store.client.create_logged_model(store.experiment_id, name="model", source_run_id=run_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        describe(exported, data, folder)
        store.client.log_model_artifacts(logged.model_id, str(folder))
    store.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return f"models:/{logged.model_id}"


def logged(store: Store, run_id: str) -> str | None:
    """URI of the logged model of *run_id*, if it has one."""
    outputs = store.client.get_run(run_id).outputs
    models = outputs.model_outputs if outputs else []
    return f"models:/{models[-1].model_id}" if models else None


def register(store: Store, name: str, record: TrackedRun, label: str) -> str:
    """Makes the logged model of the run of *record* a version of the registered model *name*, unless it is one.

    Args:
        label: What the warning calls the run, if it has none.

    Returns:
        The version's URI, such as `models:/mnist/3`; empty if the run has no model.
    """
    if not record.model:
        logging.getLogger(__name__).warning("%s has no model.pt2: nothing was registered as %s.", label, name)
        return ""
    client = store.client
    with despite("RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model(name)
    versions = (v for v in client.search_model_versions(f"name = '{name}'") if v.run_id == record.run_id)
    if (version := next(versions, None)) is None:
        model_id = record.model.removeprefix("models:/")
        version = client.create_model_version(name, record.model, record.run_id, model_id=model_id)
    return f"models:/{name}/{version.version}"


def describe(exported: Path, data: Data, folder: Path) -> None:
    """Makes *folder* an MLflow model of the pytorch flavour around the file *exported*, for images of *data*."""
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, infer_signature
    from mlflow.models.utils import _save_example
    from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv
    from yaml import safe_dump

    (folder / "data").mkdir(parents=True)
    shutil.copyfile(exported, folder / "data" / "model.pt2")
    # A package index has the build `2.14.1+cu130` as `2.14.1`.
    requirements = [f"torch=={torch_version().partition('+')[0]}", f"mlflow=={metadata.version('mlflow')}"]
    example = np.zeros((1, *data.shape), np.float32)
    model = Model(signature=infer_signature(example, np.zeros((1, data.num_classes), np.float32)))
    _save_example(model, example, str(folder))
    model.add_flavor("pytorch", model_data="data", pytorch_version=torch_version(), code=None)
    pyfunc.add_to_model(
        model,
        loader_module="mlflow.pytorch",
        data="data",
        pickle_module_name="mlflow.pytorch.pickle_module",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_config={"device": None},
    )
    model.save(str(folder / "MLmodel"))
    conda = _mlflow_conda_env(additional_pip_deps=requirements, install_mlflow=False)
    (folder / "conda.yaml").write_text(safe_dump(conda, sort_keys=False), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    _PythonEnv.current().to_yaml(str(folder / "python_env.yaml"))
