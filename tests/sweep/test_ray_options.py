"""`cluster=ray` without a cluster: options that make no sense are refused before one is asked, and what it answers."""

from typing import Any

import pytest

from mnist_exp.errors import ConfigError
from mnist_exp.sweep.job import Job

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


@pytest.mark.parametrize(
    ("options", "room"),
    [
        ({}, 16),
        ({"cpus_per_job": 3}, 5),
        ({"gpus_per_job": 0.5}, 4),
        ({"cpus_per_job": 6, "gpus_per_job": 1}, 2),
        ({"cpus_per_job": 32}, 1),
    ],
)
def test_a_search_has_as_many_trials_as_the_cluster_has_room_for(
    options: dict[str, Any], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnist_exp.sweep.cluster import ray as ray_cluster

    monkeypatch.setattr(ray_cluster.ray, "init", lambda **named: None)
    monkeypatch.setattr(ray_cluster.ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 2.0, "memory": 1e9})
    assert ray_cluster.Ray({**GOOD, **options}).room == room


def test_a_job_that_is_cancelled_as_it_begins_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray wraps that like an error of the job; a search would count a failed trial, and never go on with it."""
    from mnist_exp.sweep.cluster import ray as ray_cluster

    def raised(reference: Exception) -> bytes:
        raise ray_cluster.ray.exceptions.RayTaskError("on_worker", "Traceback", reference)

    monkeypatch.setattr(ray_cluster.ray, "init", lambda **named: None)
    monkeypatch.setattr(ray_cluster.ray, "wait", lambda references, num_returns, timeout: (references, []))
    monkeypatch.setattr(ray_cluster.ray, "get", raised)
    scheduler, one, other = ray_cluster.Ray(GOOD), Job(0, []), Job(1, [])
    own = ValueError("no luck")
    scheduler.jobs = {ray_cluster.ray.exceptions.TaskCancelledError(): one, own: other}
    (_, cancelled), (_, failed) = scheduler.ended()
    assert cancelled == "It was not started: the sweep stopped before."
    assert failed._return_value is own  # type: ignore[union-attr]
