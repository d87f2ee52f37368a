"""Options of `cluster=ray` that make no sense are refused before a cluster is asked."""

from typing import Any

import pytest

from mnist_exp.errors import ConfigError

pytest.importorskip("ray", reason='ray is not installed: pip install -e ".[ray]"')
GOOD: dict[str, Any] = {"address": None, "cpus_per_job": 1, "gpus_per_job": None, "retries": 2, "env": {}}


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("cpus_per_job", -1, "must be at least 1, but got -1."),
        ("cpus_per_job", 0, "must be at least 1, but got 0."),
        ("retries", -1, "must be at least 0, but got -1."),
        ("gpus_per_job", -0.5, "must be at least 0, but got -0.5."),
        ("gpus_per_job", 1.5, "must be a share of one GPU, or a whole number, but got 1.5."),
    ],
)
def test_an_option_out_of_range_is_named(key: str, value: float, rule: str) -> None:
    from mnist_exp.sweep.cluster import ray as ray_cluster

    with pytest.raises(ConfigError) as caught:
        ray_cluster.Ray({**GOOD, key: value})
    assert caught.value.message == f"hydra.launcher.{key} {rule}"
    assert caught.value.help.startswith(f"Try hydra.launcher.{key}=")


@pytest.mark.parametrize("gpus", [None, 0, 0.5, 1, 2])
def test_what_makes_sense_is_taken(gpus: float | None) -> None:
    from mnist_exp.sweep.cluster import ray as ray_cluster

    ray_cluster.check({**GOOD, "gpus_per_job": gpus})
