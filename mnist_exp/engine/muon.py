"""Muon for a whole network, which torch has for matrices only."""

from typing import Any, final

import torch


@final
class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` for the hidden matrices, AdamW for the rest (Jordan et al., 2024).

    Hidden are the weights of linear layers but the last. Biases, norms, convolutions and the last layer go
    to AdamW. Muon's steps are scaled to the size of AdamW's (Liu et al., arXiv 2502.16982), so one learning
    rate and one weight decay serve both.

    Args:
        params: As for any torch optimiser; layers in order.
        lr: Learning rate of both.
        weight_decay: Decoupled, of both.
        momentum: Muon's.
        betas: AdamW's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        if not 0 <= momentum < 1:  # torch's takes any, and its first step fails
            raise ValueError(f"Invalid momentum value: {momentum}")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        everything = [p for group in self.param_groups for p in group["params"]]
        hidden = [p for p in everything if p.dim() == 2][:-1]
        rest = [p for p in everything if not any(p is h for h in hidden)]
        self._muon = torch.optim.Muon(
            [{"params": hidden}], lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW(
            [{"params": rest}], lr=lr, weight_decay=weight_decay, betas=(betas[0], betas[1]), fused=True
        )
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # torch's takes a closure, which the loop has not
        """Updates every parameter from its `.grad`."""
        for part, group in zip((self._muon, self._adamw), self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state  # loading a state replaces both
            part.step()
