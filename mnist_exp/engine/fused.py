"""torch's Adam, AdamW and SGD as one kernel call a group, with the same arithmetic to the last bit.

`torch.optim` spends 40 microseconds a step on bookkeeping, a tenth of a whole step of a small network, and its
first call imports torch's compiler, which takes as long as importing torch. These are the kernels that it
calls with `fused=True`; tests/engine/test_fused.py holds them against it.
"""

from collections.abc import Callable
from typing import Any, Protocol, final

import torch
from torch import Tensor

Group = dict[str, Any]


class Optimizer(Protocol):
    """What the loop needs of an optimiser; any `torch.optim.Optimizer` has it."""

    param_groups: list[Group]
    state: Any

    def step(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
OPTIONS: dict[Any, dict[str, Any]] = {
    torch.optim.Adam: ADAM,
    torch.optim.AdamW: {**ADAM, "weight_decay": 1e-2},
    torch.optim.SGD: {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
}
"""The options that `Fused` has, with torch's defaults."""
KERNELS: dict[Any, Callable[..., Any]] = {
    torch.optim.Adam: torch._fused_adam_,
    torch.optim.AdamW: torch._fused_adamw_,
    torch.optim.SGD: torch._fused_sgd_,
}
IGNORED = {"fused", "foreach"}  # ways to compute the same


def fits(target: Any, options: dict[str, Any]) -> bool:
    """Whether `Fused` can replace *target* with these options: options that it lacks must be switched off."""
    known = OPTIONS.get(target)
    if known is None or options.get("fused") is False:
        return False
    return all(key in known or key in IGNORED or not value for key, value in options.items())


@final
class Fused:
    """Adam, AdamW or SGD over groups of parameters whose `.grad` is set before each step.

    Args:
        target: A key of `OPTIONS`.
        groups: Each has `params` and may override any option. With `rates`, (n, 1) for each parameter, the n equal
            parts of a parameter have a learning rate each, as a factor of `lr`; not to torch's last bit.
        options: As for the torch class.

    Raises:
        ValueError: an option is out of range; with torch's message.
    """

    def __init__(self, target: Any, groups: list[Group], **options: Any) -> None:
        defaults = OPTIONS[target] | {k: v for k, v in options.items() if k in OPTIONS[target]}
        self.param_groups: list[Group] = [{**defaults, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._update = self._sgd if target is torch.optim.SGD else self._adam
        self._kernel: Callable[..., Any] = KERNELS[target]
        for group in self.param_groups:
            _check(group)

    def step(self) -> None:
        """Updates every parameter from its `.grad`; autograd must be off: the loop turns it off once for all steps."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params and "rates" in group:
                self._at_rates(group, params)
            elif params:
                self._update(group, params, params)

    def _at_rates(self, group: Group, params: list[Tensor]) -> None:
        """An update is its rate times what does not depend on it: one kernel goes the way of rate 1, one the shares."""
        ends = [p.clone() for p in params]
        self._update({**group, "lr": 1.0}, params, ends)
        for p, end, rates in zip(params, ends, group["rates"], strict=True):
            p.view(len(rates), -1).lerp_(end.view(len(rates), -1), rates * group["lr"])

    def _adam(self, group: Group, params: list[Tensor], moved: list[Tensor]) -> None:
        """Updates *moved*, which has the values of *params*."""
        if params[0] not in self.state:
            for p in params:
                self.state[p] = {
                    "step": torch.zeros((), device=p.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        state = [self.state[p] for p in params]
        steps = [s["step"] for s in state]
        torch._foreach_add_(steps, 1)
        self._kernel(
            moved,
            [p.grad for p in params],
            [s["exp_avg"] for s in state],
            [s["exp_avg_sq"] for s in state],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _sgd(self, group: Group, params: list[Tensor], moved: list[Tensor]) -> None:
        """Updates *moved*, which has the values of *params*."""
        momentum = group["momentum"]
        first = bool(momentum) and params[0] not in self.state
        if first:
            for p in params:
                self.state[p] = {"momentum_buffer": torch.empty_like(p)}
        self._kernel(
            moved,
            [p.grad for p in params],
            [self.state[p]["momentum_buffer"] for p in params] if momentum else [],
            weight_decay=group["weight_decay"],
            momentum=momentum,
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=first,
        )

    def state_dict(self) -> dict[str, Any]:
        """State by position, as `torch.optim` has it; shares memory with the optimiser."""
        everything = [p for group in self.param_groups for p in group["params"]]
        return {"state": {i: self.state[p] for i, p in enumerate(everything) if p in self.state}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`; copies."""
        everything = [p for group in self.param_groups for p in group["params"]]
        for i, saved in state_dict["state"].items():
            p = everything[i]
            self.state[p] = {key: value.to(p.device, copy=True) for key, value in saved.items()}
        for group in self.param_groups:
            known = [p for p in group["params"] if p in self.state]
            for p in group["params"] if known else ():  # those of placeholders, which nothing was saved of
                if p not in self.state:
                    like, state = known[0], self.state[known[0]]
                    self.state[p] = {k: torch.zeros_like(p if v.shape == like.shape else v) for k, v in state.items()}


def _check(group: Group) -> None:
    """Checks the rules of torch's constructors and kernels, in a form that NaN breaks too."""
    at_least_0 = {"learning rate": "lr", "weight_decay value": "weight_decay", "epsilon value": "eps"}
    for name, key in {**at_least_0, "momentum value": "momentum"}.items():
        if not group.get(key, 0) >= 0:
            raise ValueError(f"Invalid {name}: {group[key]}")
    betas = group.get("betas", (0.0, 0.0))
    if not isinstance(betas, (list, tuple)) or len(betas) != 2:
        raise ValueError(f"Invalid betas, which are two numbers: {betas!r}")
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    if not isinstance(group.get("nesterov", False), bool):
        raise ValueError(f"Invalid nesterov, which is true or false: {group['nesterov']!r}")
    if not isinstance(group.get("dampening", 0), (int, float)):
        raise ValueError(f"Invalid dampening value: {group['dampening']!r}")
    if group.get("nesterov") and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
