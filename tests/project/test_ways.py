"""From the command to the gradient there are five calls; documents may name them by this list."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from samples import TINY
from torch import Tensor

from mnist_exp.engine.closed_form import MLPStack
from mnist_exp.run import session

WAY = [
    "train.main",
    "run.one.train",
    "run.session.run_many",
    "engine.loop.fit",
    "engine.loop.update",
    "engine.closed_form.gradient",
]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """Collects the package's functions on the stack, from `train.main` down, at each gradient that is computed."""
    seen: set[tuple[str, ...]] = set()
    gradient = MLPStack.gradient

    def recording(stack: MLPStack, images: Tensor, labels: Tensor) -> Tensor:
        frames = [(frame.frame.f_globals["__name__"], frame.function) for frame in reversed(inspect.stack(0)[1:])]
        names = [f"{module}.{function}" for module, function in frames if module.startswith("mnist_exp.")]
        names = [name.removeprefix("mnist_exp.") for name in (*names, "mnist_exp.engine.closed_form.gradient")]
        seen.add(tuple(names[names.index("train.main") :]))
        return gradient(stack, images, labels)

    monkeypatch.setattr(MLPStack, "gradient", recording)
    return seen


def test_from_the_command_to_the_gradient_it_is_five_calls(
    command: Callable[..., tuple[int, str, str]], ways: set[tuple[str, ...]]
) -> None:
    code, _, err = command(*TINY)
    assert code == 0, err
    assert ways == {tuple(WAY)}
    assert len(WAY) - 1 <= 5


def test_meta_a_longer_way_is_seen(
    command: Callable[..., tuple[int, str, str]], ways: set[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one more function of the package between."""
    space: dict[str, Any] = {"__name__": "mnist_exp.run.session", "run_many": session.run_many}
    exec("def detour(*arguments): return run_many(*arguments)", space)
    monkeypatch.setattr(session, "run_many", space["detour"])
    code, _, err = command(*TINY)
    assert code == 0, err
    assert ways == {("train.main", "run.one.train", "run.session.detour", *WAY[2:])}
