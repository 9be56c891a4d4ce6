"""Adam with one fused call per step."""

from typing import Any

import torch
from torch import Tensor

from skae._compat.torch import fused_adam


class Adam(torch.optim.Adam):
    """Adam whose update is one fused call on plain tensors.

    `weight_decay` adds weight_decay * weight to the gradient, as a Gaussian prior on the weights
    does. The decoupled weight decay of AdamW has no such interpretation. `eps` is much larger than
    rounding errors, because gradients near a solution consist of rounding errors, which a smaller
    `eps` would amplify.
    """

    def __init__(self, params: list[dict[str, object]], lr: float) -> None:
        super().__init__(params, lr=lr, eps=1e-5, fused=True)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {
                    "step": torch.zeros((), dtype=torch.float32, device=p.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        self._collect()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._collect()

    def restore(self, states: dict[Tensor, dict[str, Tensor]]) -> None:
        """Replace the states of some parameters by copies of earlier states."""
        for p, state in states.items():
            self.state[p] |= {
                name: value.to(self.state[p][name], copy=True) for name, value in state.items()
            }
        self._collect()

    def _collect(self) -> None:
        """Collect the tensors of an update once. Parameters of equal age share a step counter."""
        counters: dict[float, Tensor] = {}
        for p in self.parameters():
            step = self.state[p]["step"]
            self.state[p]["step"] = counters.setdefault(float(step), step)
        self._counters = [*counters.values()]
        self._lists = []
        for group in self.param_groups:
            params = group["params"]
            means = [self.state[p]["exp_avg"] for p in params]
            squares = [self.state[p]["exp_avg_sq"] for p in params]
            steps = [self.state[p]["step"] for p in params]
            self._lists.append(([p.detach() for p in params], means, squares, steps))

    def parameters(self) -> list[Tensor]:
        """Return all parameters in the order in which `update` expects their gradients."""
        return [p for group in self.param_groups for p in group["params"]]

    def update(self, gradients: list[Tensor], lr: float) -> None:
        """Take one step with the learning rate `lr`."""
        end = 0
        with torch.inference_mode():
            for counter in self._counters:
                counter.add_(1)
            groups = zip(self.param_groups, self._lists, strict=True)
            for group, (params, means, squares, steps) in groups:
                start, end = end, end + len(params)
                fused_adam(
                    params,
                    gradients[start:end],
                    means,
                    squares,
                    [],
                    steps,
                    lr=lr,
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                )
