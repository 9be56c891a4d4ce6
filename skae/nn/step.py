"""Loss and gradients of one batch: traced once per batch shape, then replayed without autograd."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from skae.nn.draws import Draws, Given, Noted

TRACE_PAYS_AFTER = 300
"""Steps of one batch shape that save as much time as its trace costs (about 0.1 s)."""

Batch = tuple[Tensor, ...]


class Step:
    """Computes a module's loss and its gradients, each batch shape in the cheaper of two ways.

    The first steps of a shape use autograd. Where enough of them lie ahead to pay for it, loss and
    gradients are traced to one flat graph, which gives the same bits at about half the time.
    Whatever cannot be traced stays with autograd.

    Parameters
    ----------
    module : nn.Module
        Its `forward(*batch, draws)` is the loss.
    draws : Draws
    autocast : bool
        Compute in bfloat16 where torch deems it safe.
    """

    def __init__(self, module: nn.Module, draws: Draws, autocast: bool = False) -> None:
        self.module = module
        self.draws = draws
        self.autocast = autocast
        self.names = [name for name, p in module.named_parameters() if p.requires_grad]
        self.params: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        self._replays: dict[tuple[torch.Size, ...], Callable[[Batch], list[Tensor]] | None] = {}

    def __call__(self, batch: Batch, steps_ahead: int) -> list[Tensor]:
        """[loss, *gradients] of a batch; about `steps_ahead` more of its shape are to come."""
        shapes = tuple(tensor.shape for tensor in batch)
        if shapes not in self._replays and steps_ahead >= TRACE_PAYS_AFTER:
            self._replays[shapes] = self._trace(batch)
        replay = self._replays.get(shapes)
        if replay is not None:
            return replay(batch)
        return self._gradients(self.params, batch, self.draws)

    def _gradients(self, params: list[Tensor], batch: Batch, draws: Draws) -> list[Tensor]:
        named = dict(zip(self.names, params, strict=True))
        device = batch[0].device.type
        with torch.enable_grad():
            with torch.autocast(device, torch.bfloat16, self.autocast, cache_enabled=False):
                loss = functional_call(self.module, named, (*batch, draws))
            gradients = torch.autograd.grad(loss, params, materialize_grads=True)
        return [loss.detach(), *gradients]

    def _trace(self, batch: Batch) -> Callable[[Batch], list[Tensor]] | None:
        params = [p.detach() for p in self.params]
        generator, state = self.draws.generator, self.draws.generator.get_state()
        noted = Noted(generator, self.draws.dtype)
        n_params, n_batch = len(params), len(batch)

        def function(*tensors: Tensor) -> list[Tensor]:
            leaves = [p.detach().requires_grad_() for p in tensors[:n_params]]
            rows, noise = tensors[n_params:][:n_batch], tensors[n_params + n_batch :]
            return self._gradients(leaves, rows, Given(noise))

        try:
            with torch.no_grad():
                self.module(*batch, noted)
            noise = [self.draws.draw(*request) for request in noted.requests]
            forward = _slim(make_fx(function)(*params, *batch, *noise)).forward
        except Exception:  # what stops a trace is autograd's to compute or to report
            return None
        finally:
            generator.set_state(state)

        def replay(batch: Batch) -> list[Tensor]:
            with torch.inference_mode():
                noise = [self.draws.draw(*request) for request in noted.requests]
                result: list[Tensor] = forward(*params, *batch, *noise)
            return result

        return replay


def _slim(traced: GraphModule) -> GraphModule:
    """Drop the calls that only autograd needs, and take each transpose once."""
    aten = torch.ops.aten
    transposes: dict[object, torch.fx.Node] = {}
    for node in list(traced.graph.nodes):
        if node.target in (aten.detach.default, aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
        elif node.target is aten.t.default:
            first = transposes.setdefault(node.args[0], node)
            if first is not node:
                node.replace_all_uses_with(first)
                traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


class Adam(torch.optim.Adam):
    """Adam whose whole update is one fused call on plain tensors.

    `weight_decay` adds weight_decay * weight to the gradient, which is what a Gaussian prior on the
    weights does to the objective; the decoupled form of AdamW has no such reading. `eps` is far
    above rounding errors: at a solution they are all that is left of gradients, and a smaller one
    magnifies them.
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

    def update(self, gradients: dict[Tensor, Tensor]) -> None:
        """Take one step along gradients given by parameter."""
        with torch.inference_mode():
            for group in self.param_groups:
                params = group["params"]
                states = [self.state[p] for p in params]
                steps = [state["step"] for state in states]
                torch._foreach_add_(steps, 1)
                torch._fused_adam_(
                    [p.detach() for p in params],
                    [gradients[p] for p in params],
                    [state["exp_avg"] for state in states],
                    [state["exp_avg_sq"] for state in states],
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
