"""Hydra's joblib launcher with the in-memory script as its jobs, one thread each: `-m hidden=64,128 lr=1e-3,3e-3`."""

import os

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from benchmarks.peers.settings import Settings

ConfigStore.instance().store(
    "joblib_sweep",
    {
        "defaults": [{"settings": "peer"}, "_self_", {"override hydra/launcher": "joblib"}],
        "hydra": {"launcher": {"n_jobs": os.cpu_count()}},
    },
)
ConfigStore.instance().store("peer", Settings, group="settings", package="_global_")


@hydra.main(version_base="1.3", config_path=None, config_name="joblib_sweep")  # type: ignore[untyped-decorator]  # hydra ships no types
def main(cfg: DictConfig) -> float:
    """Trains one point; returns its test accuracy."""
    from benchmarks.peers import eager

    return eager.train(Settings(**OmegaConf.to_container(cfg)))[1]  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
