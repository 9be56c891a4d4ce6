"""The loop: skorch's over rows in memory, with its schedule and its best epoch."""

import copy
import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer, PrintLog
from skorch.history import History
from torch import Tensor, nn

from skae.files import is_of
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.step.adam import Adam
from skae.nn.step.replay import Step
from skae.training.batches import Batches
from skae.training.plan import Plan


class StopTraining(Exception):
    """Raised in an epoch's end to leave the loop; the fit goes on as if all epochs were done."""


class Net(NeuralNet):
    """skorch's net with the objective inside the module and rows in memory.

    `fit_rows` is its only entry point for training: it keeps the optimiser, the history and the
    generator, so that a second call continues the first.
    """

    plan: Plan
    generator: torch.Generator
    _best: "_BestEpoch | None"

    @classmethod
    def from_module(cls, module: nn.Module, generator: torch.Generator) -> "Net":
        """A net around an initialised module, with its generator on the module's device."""
        parameter = next(module.parameters())
        net = cls(module, criterion=nn.Identity, device=str(parameter.device), verbose=0)
        net.generator = generator
        net.dtype = parameter.dtype
        return net.initialize()

    def duplicate(self, module: nn.Module) -> "Net":
        """A net in the same state, around a copy of its module, that shares nothing with it."""
        net = Net.from_module(module, torch.Generator(self.generator.device))
        net.load_arrays(self.arrays())
        return net

    def fit_rows(self, train: Batches, valid: Batches | None, plan: Plan) -> tuple[int, float]:
        """Train; returns the epoch whose weights the module then has, and the last one's objective.

        That is the best one on held-out rows where the plan wants it, else the last one. Epoch 0 is
        the start, before any step.
        """
        self.plan = plan
        self._tables = [train] if valid is None else [train, valid]
        self.verbose = plan.verbose
        self.callbacks = plan.callbacks + ([plan.contexts] if plan.contexts else [])
        self._has_callbacks = bool(plan.callbacks)
        for group in self.optimizer_.param_groups:
            group["weight_decay"] = plan.weight_decay if group["penalized"] else 0.0
        self._draws = Draws(self.generator, self.dtype)
        self._step = Step(self.module_, self.optimizer_.parameters(), self._draws, plan.autocast)
        self._batches_per_epoch = math.ceil(len(train) / plan.batch_size)
        self._steps_done, self._steps = 0, self._batches_per_epoch * plan.max_epochs
        self._best, first_epoch = None, len(self.history)
        if valid is not None:
            self._best = _BestEpoch()
            valid = valid.corrupted(self.generator)
            self._best.update(0, self.evaluate(valid), self.module_, plan.tol)
        self.initialize_callbacks()
        self.notify("on_train_begin")
        with suppress(StopTraining):
            self._stop_if_out_of_patience()
            self.fit_loop(train, valid, epochs=plan.max_epochs - self._epochs_done)
        kept, end = len(self.history) - first_epoch, self.evaluate(train)
        if self._best is not None and plan.restore_best:
            kept = self._best.epoch
            self.module_.load_state_dict(self._best.state)
        self.notify("on_train_end")
        self.module_.eval()
        del self._step, self._draws, self._best, self._tables
        return kept, end

    def reset_optimizer(self) -> None:
        """Drop the optimiser's state: the next training starts a new one."""
        with self._current_init_context("optimizer"):
            self.initialize_optimizer()

    def arrays(self) -> dict[str, Any]:
        """What training needs to go on, in numpy arrays: history, generator and any momentum."""
        states = [self.optimizer_.state[p] for p in self._trainable_parameters()]
        moved = any(float(state["step"]) for state in states)
        return {
            "history": copy.deepcopy(list(self.history)),
            "generator": self.generator.get_state().numpy(),
            "optimizer": [to_arrays(state) for state in states if moved],
        }

    def load_arrays(self, arrays: dict[str, Any]) -> None:
        """Go back to a state given by `arrays`."""
        self.history = as_history(arrays["history"])
        state = torch.tensor(arrays["generator"])
        # Devices' generators differ in size: training goes on from a fresh one on another device.
        if len(state) == len(self.generator.get_state()):
            self.generator.set_state(state)
        for p, saved in zip(self._trainable_parameters(), arrays["optimizer"], strict=False):
            for name, value in saved.items():
                self.optimizer_.state[p][name].copy_(torch.tensor(value))

    def fingerprint(self) -> str:
        """A text that tells this training from all others; known before its first step."""
        digest = hashlib.sha256(self.plan.signature.encode())
        digest.update(repr((self._steps, self.plan.batch_size, str(self.dtype))).encode())
        for tensor in (self.generator.get_state(), *self.module_.state_dict().values()):
            digest.update(tensor.cpu().numpy().tobytes())
        for rows in self._tables:
            digest.update(rows.index.cpu().numpy().tobytes())
            for chunk in rows.chunks():
                for part in chunk.tensors():
                    digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()[:32]

    def progress(self) -> dict[str, Any]:
        """All that training needs to go on from this epoch's end, in numbers and arrays."""
        return {
            "steps_done": self._steps_done,
            "module": to_arrays(self.module_.state_dict()),
            "training": self.arrays(),
            "best": self._best and vars(self._best) | {"state": to_arrays(self._best.state)},
        }

    def resume_from(self, progress: dict[str, Any]) -> None:
        """Go to the epoch's end at which `progress` was taken."""
        self._steps_done = progress["steps_done"]
        self.module_.load_state_dict(to_tensors(progress["module"]))
        self.load_arrays(progress["training"])
        if progress["best"] is not None:
            state = to_tensors(progress["best"]["state"])
            self._best = _BestEpoch(**progress["best"] | {"state": state})

    def _trainable_parameters(self) -> list[Tensor]:
        return [p for p in self.module_.parameters() if p.requires_grad]

    def evaluate(self, rows: Batches) -> float:
        """The objective on rows by chunks, at the schedule's end; its draws are always the same."""
        self.module_.eval()
        generator = torch.Generator(self.generator.device).manual_seed(0)
        draws = Draws(generator, self.dtype)
        weights, losses = [], []
        with torch.no_grad():
            for batch in rows.chunks(generator):
                weights.append(batch.weight)
                losses.append(self.module_.losses(draws, batch))
            return self.module_.reduce(torch.cat(losses), torch.cat(weights)).item()

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        log = PrintLog(keys_ignored=["traced_shapes", "trace_failures"])
        return [("epoch_timer", EpochTimer()), *([("print_log", log)] if self.verbose else [])]

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> "Net":
        self.optimizer_ = Adam(_groups(self.module_), lr=1e-3)
        return self

    def get_split_datasets(
        self, X: Batches, y: Batches | None = None, **fit_params: object
    ) -> tuple[Batches, Batches | None]:
        return X, y

    def get_iterator(self, dataset: Batches, training: bool = False) -> Batches:
        return dataset

    def run_single_epoch(self, iterator: Batches | None, training: bool, **options: object) -> None:
        if iterator is None:
            return
        if not training:
            self.history.record("valid_loss", self.evaluate(iterator))
            return
        self.module_.train()
        self.history.new_batch()
        losses, sizes = [], []
        for batch in iterator.batches(self.plan.batch_size, self.generator):
            if self._has_callbacks:
                self.notify("on_batch_begin", batch=batch, training=True)
            loss = self.train_step(batch)["loss"]
            losses.append(loss)
            sizes.append(len(batch.x))
            if self._has_callbacks:
                self.notify("on_batch_end", batch=batch, training=True, loss=loss, y_pred=None)
        weights = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
        mean = float(torch.stack(losses).cpu().double() @ weights)
        self.history.record_batch("train_loss", mean)
        self.history.record_batch("train_batch_size", sum(sizes))
        self.history.record("train_batch_count", len(sizes))
        self.history.record("train_loss", mean)
        # A step that cannot be traced costs twice the time: the history says so, and why.
        self.history.record("traced_shapes", self._step.n_traced)
        self.history.record("trace_failures", self._step.failures)
        self._step.failures = []
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss became {mean}")

    def train_step(self, batch: Batch, **fit_params: object) -> dict[str, Tensor]:
        remaining = (self._steps - self._steps_done) // self._batches_per_epoch
        full = len(batch.x) == self.plan.batch_size
        if self.plan.one_cycle and self.plan.from_start:
            self._draws.progress = (self._steps_done + 1) / self._steps
        loss, *gradients = self._step(
            batch, remaining * max(1, (self._batches_per_epoch - 1) if full else 1)
        )
        if self._has_callbacks:
            # Callbacks may change gradients in place, which a replayed step's do not allow.
            gradients = [gradient.clone() for gradient in gradients]
            for p, gradient in zip(self._step.params, gradients, strict=True):
                p.grad = gradient
            named = zip(self._step.names, self._step.params, strict=True)
            self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        rate = self.plan.rate(self._steps_done / self._steps)
        for group in self.optimizer_.param_groups:
            group["lr"] = rate
        self.optimizer_.update(gradients, rate)
        self.module_.after_step(self._draws, batch)
        self._steps_done += 1
        return {"loss": loss}

    @property
    def _epochs_done(self) -> int:
        return self._steps_done // self._batches_per_epoch

    def _stop_if_out_of_patience(self) -> None:
        """Stop where, in the schedule's second half, nothing has improved for too many epochs."""
        if self._best is not None and self.plan.patience is not None:
            since = max(self._best.waiting_since, self.plan.max_epochs // 2)
            if self._epochs_done - since >= self.plan.patience:
                raise StopTraining

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        if self._best is not None:
            loss = self.history[-1, "valid_loss"]
            improved = self._best.update(self._epochs_done, loss, self.module_, self.plan.tol)
            self.history.record("valid_loss_best", improved)

    def notify(self, method_name: str, **kwargs: object) -> None:
        getattr(self, method_name)(self, **kwargs)
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **kwargs)
            except KeyboardInterrupt:
                # A user's callback says "stop" this way, as skorch's own do.
                stops = callback in self.plan.callbacks and getattr(callback, "may_stop", True)
                if method_name != "on_epoch_end" or not stops:
                    raise
                raise StopTraining from None
        if method_name == "on_epoch_end":
            self._stop_if_out_of_patience()


def as_history(rows: list[dict[str, Any]]) -> History:
    """What skorch recorded at each epoch; callbacks may change it without changing `rows`."""
    return History(copy.deepcopy(rows))


def check_well_formed(arrays: Any, module: nn.Module) -> None:
    """Raise ValueError where `arrays` of a file cannot be those of a net around a module."""
    if not isinstance(arrays, dict) or arrays.keys() != {"history", "generator", "optimizer"}:
        raise ValueError("a training consists of history, generator and optimizer")
    if not all(is_of(arrays[name], list[dict]) for name in ("history", "optimizer")):
        raise ValueError("history and optimizer are lists, an entry for each epoch or weight")
    for epoch in arrays["history"]:
        if not all(is_of(epoch.get(name, 0.0), float) for name in ("train_loss", "valid_loss")):
            raise ValueError(f"{epoch!r} is not what was recorded of an epoch")
    generator, state = torch.Generator(), torch.tensor(arrays["generator"])
    if state.ndim != 1 or state.dtype != torch.uint8:
        raise ValueError("a generator's state consists of bytes")
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
    trained = [p.shape for p in module.parameters() if p.requires_grad]
    for shape, saved in zip(trained, arrays["optimizer"] or [{}] * len(trained), strict=True):
        kinds = {name: (values.shape, values.dtype.kind) for name, values in saved.items()}
        moments = ((*shape,), "f")
        if kinds and kinds != {"step": ((), "f"), "exp_avg": moments, "exp_avg_sq": moments}:
            raise ValueError("the optimizer's state is not that of this network")


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors as numpy arrays of their own memory."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Arrays as tensors of their own memory."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def _groups(module: nn.Module) -> list[dict[str, object]]:
    """Parameters by whether weight decay acts on them."""
    penalized = {id(p) for p in module.penalized()}  # type: ignore[operator]
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for p in module.parameters():
        if p.requires_grad:
            groups[id(p) in penalized].append(p)
    return [{"params": ps, "penalized": which} for which, ps in groups.items() if ps]


@dataclass
class _BestEpoch:
    """The weights of the epoch that does best on held-out rows, and since when none does."""

    state: dict[str, Tensor] = field(default_factory=dict)
    loss: float = math.inf
    epoch: int = 0
    reference: float = math.inf
    waiting_since: int = 0

    def update(self, epoch: int, loss: float, module: nn.Module, tol: float) -> bool:
        """Note an epoch's held-out loss; True where it is the best so far."""
        if loss < self.reference - tol:
            self.reference, self.waiting_since = loss, epoch
        if not loss < self.loss:
            return False
        self.loss, self.epoch = loss, epoch
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}
        return True
