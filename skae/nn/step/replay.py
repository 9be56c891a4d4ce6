"""Loss and gradients of batches, traced once per shape and replayed without autograd."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from skae._compat.torch import make_fx, tensor_version
from skae.nn.batch import Batch
from skae.nn.draws import Draws, RecordedDraws, ReplayedDraws
from skae.nn.locks import process_lock
from skae.nn.step.graph import shorten

TRACE_PAYS_AFTER = 300
"""Number of steps after which a trace has saved the time that it took to make it, about 0.1 s."""

Shapes = tuple[torch.Size | None, ...]

_tracing = process_lock()
"""Needed because fx replaces methods of `nn.Module` globally during a trace."""


class Step:
    """Computes the loss of a module and its gradients.

    The first step with a new batch shape uses autograd. If enough steps of this shape follow, the
    loss and its gradients are also traced, which gives a flat list of calls. Later steps replay the
    list, which gives bitwise the same results in about half the time. Objectives that cannot be
    traced, or whose replay differs from autograd, continue to use autograd.

    Parameters
    ----------
    module : nn.Module
        Module whose `forward(draws, batch)` returns the loss. Between steps, its parameters may
        change only in place, and its buffers must not change. If a submodule has an attribute
        `traces` that is False, the module is never traced.
    params : sequence of Tensor
        Parameters for which gradients are computed, in this order.
    draws : Draws
        Source of random numbers.
    autocast : bool
        Whether torch's autocast computes some operations in bfloat16.

    Attributes
    ----------
    failures : list of str
        Reasons for which traces failed.
    """

    def __init__(
        self, module: nn.Module, params: Sequence[Tensor], draws: Draws, autocast: bool = False
    ) -> None:
        self.module = module
        self.params = params
        self.draws = draws
        self.autocast = autocast
        names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
        self.names = [names[p] for p in params]
        self.frozen = {name: p for p, name in names.items() if not p.requires_grad}
        self.may_trace = all(getattr(part, "traces", True) for part in module.modules())
        self.failures: list[str] = []
        self._replays: dict[Shapes, Callable[[Batch], list[Tensor]] | None] = {}

    @property
    def n_traced(self) -> int:
        """Number of batch shapes whose steps are replayed."""
        return sum(replay is not None for replay in self._replays.values())

    def __call__(self, batch: Batch, steps_ahead: int) -> list[Tensor]:
        """Return [loss, *gradients] of a batch.

        `steps_ahead` is the approximate number of later steps with batches of this shape.
        """
        shapes = tuple([None if part is None else part.shape for part in batch])
        replay = self._replays.get(shapes)
        if replay is not None:
            return replay(batch)
        pays = steps_ahead >= TRACE_PAYS_AFTER and self.may_trace
        if pays and shapes not in self._replays:
            self._replays[shapes] = self._trace(batch)
        return self._gradients(self.module, self.params, batch, self.draws)

    def _gradients(
        self, module: Callable[..., Tensor], params: Sequence[Tensor], batch: Batch, draws: Draws
    ) -> list[Tensor]:
        device = batch.x.device.type
        with torch.enable_grad():
            with torch.autocast(device, torch.bfloat16, self.autocast, cache_enabled=False):
                loss = module(draws, batch)
            seed = torch.ones((), dtype=loss.dtype, device=loss.device)
            gradients = torch.autograd.grad(loss, params, seed, materialize_grads=True)
        return [loss.detach(), *gradients]

    def _trace(self, batch: Batch) -> Callable[[Batch], list[Tensor]] | None:
        params = [p.detach() for p in self.params]
        frozen = [p.detach() for p in self.frozen.values()]
        generator, state = self.draws.generator, self.draws.generator.get_state()
        buffers = [
            (buffer, tensor_version(buffer), buffer.clone()) for buffer in self.module.buffers()
        ]
        recorded = RecordedDraws(generator, self.draws.dtype)
        recorded.progress = self.draws.progress
        parts = batch.tensors()
        n_params, n_fixed, n_parts = len(params), len(params) + len(frozen), len(parts)

        def function(*tensors: Tensor) -> list[Tensor]:
            leaves = [p.detach().requires_grad_() for p in tensors[:n_params]]
            rows, noise = tensors[n_fixed:][:n_parts], tensors[n_fixed + n_parts :]
            named = dict(zip(self.names, leaves, strict=True))
            named |= dict(zip(self.frozen, tensors[n_params:n_fixed], strict=True))
            module = partial(functional_call, self.module, named)
            traced_batch = batch.with_tensors([*rows])
            return self._gradients(
                lambda *args: module(args), leaves, traced_batch, ReplayedDraws(noise)
            )

        try:
            expected = self._gradients(self.module, self.params, batch, recorded)
            generator.set_state(state)
            noise = [self.draws.draw(*request) for request in recorded.requests]
            with _tracing:
                traced = make_fx(function)(*params, *frozen, *parts, *noise)
            forward = shorten(traced, params + frozen)
            with torch.inference_mode():
                result = forward(*parts, *noise)
            same = all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
            failure = "" if same else "the replay differs from autograd"
        except Exception as error:  # autograd then computes the step or reports the error
            failure = repr(error)
        finally:
            generator.set_state(state)
            changed = [entry for entry in buffers if tensor_version(entry[0]) != entry[1]]
            for buffer, _, before in changed:
                buffer.copy_(before)
        if changed:
            failure = "the step changes buffers"
        if failure:
            self.failures.append(failure)
            return None

        def replay(batch: Batch) -> list[Tensor]:
            with torch.inference_mode():
                noise = [self.draws.draw(*request) for request in recorded.requests]
                result: list[Tensor] = forward(*batch.tensors(), *noise)
            return result

        return replay
