"""Training loop: a skorch net with rows in memory, a learning-rate schedule and a best epoch."""

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

from skae.files import matches_type
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.step.adam import Adam
from skae.nn.step.replay import Step
from skae.training.batches import Batches
from skae.training.plan import Plan


class StopTraining(Exception):
    """Raised at the end of an epoch to end training early. The fit then completes normally."""


class Net(NeuralNet):
    """skorch net whose module computes the objective and whose rows are in memory.

    `fit_rows` is the only entry point for training. The optimizer, the history and the generator
    are kept, so that a second call of `fit_rows` continues the first.
    """

    plan: Plan
    generator: torch.Generator
    _best: "_BestEpoch | None"

    @classmethod
    def from_module(cls, module: nn.Module, generator: torch.Generator) -> "Net":
        """Wrap an initialized module. The generator must be on the device of the module."""
        parameter = next(module.parameters())
        net = cls(module, criterion=nn.Identity, device=str(parameter.device), verbose=0)
        net.generator = generator
        net.dtype = parameter.dtype
        return net.initialize()

    def duplicate(self, module: nn.Module) -> "Net":
        """Return a net with the same training state for `module`, a copy of this net's module."""
        net = Net.from_module(module, torch.Generator(self.generator.device))
        net.load_arrays(self.arrays())
        return net

    def fit_rows(self, train: Batches, valid: Batches | None, plan: Plan) -> tuple[int, float]:
        """Train the module in place.

        Parameters
        ----------
        train : Batches
            Training rows.
        valid : Batches or None
            Validation rows. They are corrupted once, before the first step.
        plan : Plan
            Settings of the training.

        Returns
        -------
        epoch : int
            Epoch whose weights the module has after the call, counted from 1 in this call. 0 is the
            state before the first step. It is the best epoch on validation rows if there are any
            and `plan.restore_best` is True, and the last epoch otherwise.
        loss : float
            Objective on the training rows after the last epoch, in nats per row, even if the module
            has the weights of an earlier epoch.

        Raises
        ------
        FloatingPointError
            If the mean loss of an epoch is not finite.
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
        final_epoch, final_loss = len(self.history) - first_epoch, self.evaluate(train)
        if self._best is not None and plan.restore_best:
            final_epoch = self._best.epoch
            self.module_.load_state_dict(self._best.state)
        self.notify("on_train_end")
        self.module_.eval()
        del self._step, self._draws, self._best, self._tables
        return final_epoch, final_loss

    def reset_optimizer(self) -> None:
        """Discard the state of the optimizer, so that the next training starts without momentum."""
        with self._current_init_context("optimizer"):
            self.initialize_optimizer()

    def arrays(self) -> dict[str, Any]:
        """Return the training state (history, generator, optimizer), with tensors as arrays.

        The state of the optimizer is an empty list before its first step.
        """
        states = [self.optimizer_.state[p] for p in self._trainable_parameters()]
        has_stepped = any(float(state["step"]) for state in states)
        return {
            "history": copy.deepcopy(list(self.history)),
            "generator": self.generator.get_state().numpy(),
            "optimizer": [to_arrays(state) for state in states if has_stepped],
        }

    def load_arrays(self, arrays: dict[str, Any]) -> None:
        """Restore a training state that `arrays` returned."""
        self.history = as_history(arrays["history"])
        state = torch.tensor(arrays["generator"])
        # The size of the state depends on the device: on another device, the generator is not
        # restored.
        if len(state) == len(self.generator.get_state()):
            self.generator.set_state(state)
        for p, saved in zip(self._trainable_parameters(), arrays["optimizer"], strict=False):
            for name, value in saved.items():
                self.optimizer_.state[p][name].copy_(torch.tensor(value))

    def fingerprint(self) -> str:
        """Compute a text that identifies this training, before its first step.

        Two trainings have the same text if they have the same `plan.signature`, number of steps,
        batch size, dtype, rows, initial weights and state of the generator.
        """
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
        """Return what is needed to resume from the end of this epoch, as numbers and arrays."""
        return {
            "steps_done": self._steps_done,
            "module": to_arrays(self.module_.state_dict()),
            "training": self.arrays(),
            "best": self._best and vars(self._best) | {"state": to_arrays(self._best.state)},
        }

    def resume_from(self, progress: dict[str, Any]) -> None:
        """Restore the state at the end of the epoch in which `progress` was called."""
        self._steps_done = progress["steps_done"]
        self.module_.load_state_dict(to_tensors(progress["module"]))
        self.load_arrays(progress["training"])
        if progress["best"] is not None:
            state = to_tensors(progress["best"]["state"])
            self._best = _BestEpoch(**progress["best"] | {"state": state})

    def _trainable_parameters(self) -> list[Tensor]:
        return [p for p in self.module_.parameters() if p.requires_grad]

    def evaluate(self, rows: Batches) -> float:
        """Compute the objective on rows, with the same random draws in every call.

        Parts of the objective that are annealed have their value at the end of the schedule. The
        module is in evaluation mode afterwards.
        """
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
        # Steps that cannot be traced take twice the time, so the history records the reasons.
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
            # Callbacks may change gradients in place, but those of a replayed step are reused.
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
        """Raise StopTraining if the validation loss has not improved for `plan.patience` epochs.

        A decrease of at most `plan.tol` is no improvement. Only epochs in the second half of the
        schedule are counted.
        """
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
                # As in skorch, a user's callback may raise KeyboardInterrupt to stop training.
                may_stop = callback in self.plan.callbacks and getattr(callback, "may_stop", True)
                if method_name != "on_epoch_end" or not may_stop:
                    raise
                raise StopTraining from None
        if method_name == "on_epoch_end":
            self._stop_if_out_of_patience()


def as_history(epochs: list[dict[str, Any]]) -> History:
    """Convert a list of epochs to a skorch history, which shares no memory with the list."""
    return History(copy.deepcopy(epochs))


def check_well_formed(arrays: Any, module: nn.Module) -> None:
    """Raise ValueError if `arrays` from a file are not a valid training state for a module."""
    if not isinstance(arrays, dict) or arrays.keys() != {"history", "generator", "optimizer"}:
        raise ValueError("the training state must consist of history, generator and optimizer")
    if not all(matches_type(arrays[name], list[dict]) for name in ("history", "optimizer")):
        raise ValueError("history and optimizer must be lists of dictionaries")
    for epoch in arrays["history"]:
        if not all(
            matches_type(epoch.get(name, 0.0), float) for name in ("train_loss", "valid_loss")
        ):
            raise ValueError(
                f"train_loss and valid_loss of an epoch must be numbers, got {epoch!r}"
            )
    generator, state = torch.Generator(), torch.tensor(arrays["generator"])
    if state.ndim != 1 or state.dtype != torch.uint8:
        raise ValueError("the state of the generator must be a vector of bytes")
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
    trained = [p.shape for p in module.parameters() if p.requires_grad]
    for shape, saved in zip(trained, arrays["optimizer"] or [{}] * len(trained), strict=True):
        kinds = {name: (values.shape, values.dtype.kind) for name, values in saved.items()}
        moments = ((*shape,), "f")
        if kinds and kinds != {"step": ((), "f"), "exp_avg": moments, "exp_avg_sq": moments}:
            raise ValueError(
                "the state of the optimizer does not match the parameters of the network"
            )


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Copy tensors to numpy arrays."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Copy arrays to tensors."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def _groups(module: nn.Module) -> list[dict[str, object]]:
    """Group the trainable parameters by whether weight decay applies to them."""
    penalized = {id(p) for p in module.penalized()}  # type: ignore[operator]
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for p in module.parameters():
        if p.requires_grad:
            groups[id(p) in penalized].append(p)
    return [{"params": ps, "penalized": is_penalized} for is_penalized, ps in groups.items() if ps]


@dataclass
class _BestEpoch:
    """Weights of the best epoch on validation rows, and the state of early stopping.

    Attributes
    ----------
    state : dict of str to Tensor
        Weights of the best epoch.
    loss : float
        Validation loss of the best epoch.
    epoch : int
        The best epoch. 0 is the state before the first step.
    reference : float
        Validation loss at the last improvement by more than `tol`.
    waiting_since : int
        Epoch of this improvement.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    loss: float = math.inf
    epoch: int = 0
    reference: float = math.inf
    waiting_since: int = 0

    def update(self, epoch: int, loss: float, module: nn.Module, tol: float) -> bool:
        """Record the validation loss of an epoch, and return whether it is the lowest so far."""
        if loss < self.reference - tol:
            self.reference, self.waiting_since = loss, epoch
        if not loss < self.loss:
            return False
        self.loss, self.epoch = loss, epoch
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}
        return True
