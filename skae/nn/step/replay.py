"""Loss and gradients of one batch: traced once per batch shape, then replayed without autograd."""

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
"""Steps of one batch shape that save as much time as its trace costs (about 0.1 s)."""

Shapes = tuple[torch.Size | None, ...]

_tracing = process_lock()
"""While it traces, fx replaces methods of `nn.Module` for the whole process."""


class Step:
    """Computes a module's loss and its gradients, each batch shape in the cheaper of two ways.

    The first steps of a shape use autograd. Where enough of them lie ahead to pay for it, loss and
    gradients are traced to one flat list of calls, which gives the same bits at about half the
    time. Whatever cannot be traced, or comes out other than autograd has it, stays with autograd.

    Parameters
    ----------
    module : nn.Module
        Its `forward(draws, batch)` is the loss. Between steps, its parameters change in place
        only, and its buffers not at all. A part of it whose attribute `traces` is False keeps it
        with autograd.
    params : sequence of Tensor
        Those of its parameters to take gradients of, in this order.
    draws : Draws
    autocast : bool
        Compute in bfloat16 where torch deems it safe.

    Attributes
    ----------
    failures : list of str
        Why batch shapes that were to be traced stayed with autograd.
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
        """The number of batch shapes whose steps are replayed."""
        return sum(replay is not None for replay in self._replays.values())

    def __call__(self, batch: Batch, steps_ahead: int) -> list[Tensor]:
        """[loss, *gradients] of a batch; about `steps_ahead` more of its shape are to come."""
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
        noted = RecordedDraws(generator, self.draws.dtype)
        noted.progress = self.draws.progress
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
            expected = self._gradients(self.module, self.params, batch, noted)
            generator.set_state(state)
            noise = [self.draws.draw(*request) for request in noted.requests]
            with _tracing:
                traced = make_fx(function)(*params, *frozen, *parts, *noise)
            forward = shorten(traced, params + frozen)
            with torch.inference_mode():
                result = forward(*parts, *noise)
            same = all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
            failure = "" if same else "the replay differs from autograd"
        except Exception as error:  # what stops a trace is autograd's to compute or to report
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
                noise = [self.draws.draw(*request) for request in noted.requests]
                result: list[Tensor] = forward(*batch.tensors(), *noise)
            return result

        return replay
