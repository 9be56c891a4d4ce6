"""Training loop: a skorch net with rows in memory, a learning-rate schedule and a best epoch."""

import dis
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, PrintLog
from skorch.history import History
from torch import Tensor, nn

from skae import files
from skae.files import matches_type
from skae.nn.batch import Batch
from skae.nn.draws import Draws, derive_seed
from skae.nn.step.adam import Adam
from skae.nn.step.replay import Step
from skae.training.batches import Batches
from skae.training.epochs import BestEpoch, Outcome, paired_change
from skae.training.plan import Plan, Schedule
from skae.training.progress import LongTraining, print_plain
from skae.training.threads import threads_for

_Loss = TypeVar("_Loss", float, Tensor)

RAISE = dis.opmap["RAISE_VARARGS"]
"""Code of the instruction of a `raise` statement."""


class StopTraining(Exception):
    """Raised at the end of an epoch to end training early. The fit then completes normally."""


class DivergenceError(ValueError):
    """Error of a training whose objective or density becomes infinite or NaN."""


class Net(NeuralNet):
    """skorch net whose module computes the objective and whose rows are in memory.

    `fit_rows` is the only entry point for training. The optimizer, the history and the generator
    are kept, so that a second call of `fit_rows` continues the first.
    """

    plan: Plan
    generator: torch.Generator
    history: History
    callbacks_: list[tuple[str, Callback]]
    checkpoints: dict[Callback, Path]
    """Files from which the training could resume, by the callback that writes them."""
    duration: LongTraining
    first_epoch: int = 0
    """Length of the history before the latest training."""
    stopped_early: bool = False
    """Whether a callback or the patience has ended the latest training."""
    _best: BestEpoch | None
    _step: Step
    """Computes losses and gradients. It is kept between trainings, because its traces take time."""

    @classmethod
    def from_module(cls, module: nn.Module, generator: torch.Generator) -> "Net":
        """Wrap an initialized module. The generator must be on the device of the module."""
        parameter = next(module.parameters())
        net = cls(module, criterion=nn.Identity, device=str(parameter.device), verbose=0)
        net.generator = generator
        net.checkpoints, net.duration = {}, LongTraining()
        net.dtype = parameter.dtype
        return net.initialize()

    def duplicate(self, module: nn.Module) -> "Net":
        """Return a net with the same training state for `module`, a copy of this net's module."""
        net = Net.from_module(module, torch.Generator(self.generator.device))
        net.load_arrays(self.arrays())
        net.first_epoch = self.first_epoch
        return net

    def fit_rows(
        self,
        train: Batches,
        valid: Batches | None,
        plan: Plan,
        returns_to_start: Callable[[Outcome], bool] | None = None,
    ) -> Outcome:
        """Train the module in place.

        Parameters
        ----------
        train : Batches
            Training rows.
        valid : Batches or None
            Validation rows. They are corrupted once, before the first step.
        plan : Plan
            Settings of the training.
        returns_to_start : callable or None
            Function of the outcome with the weights of the last epoch. If it returns True, the
            weights from the start are restored. It is not called if validation rows select the
            epoch.

        Returns
        -------
        outcome : Outcome
            The epoch whose weights the module has after the call, and what training has changed. It
            is the best epoch on validation rows if there are any and `plan.restore_best` is True.
            Otherwise, it is the last epoch, or 0 if `returns_to_start` returns True.

        Raises
        ------
        DivergenceError
            If the mean loss of an epoch or the final objective is not finite.
        ValueError
            If a callback changes the learning rate or freezes weights.
        """
        self.plan = plan
        self._tables = [train] if valid is None else [train, valid]
        # Callbacks that log the settings of a net read these attributes.
        self.lr, self.max_epochs = plan.learning_rate, plan.budget.max_epochs
        self.batch_size = plan.budget.batch_size
        n_batches = len(train.batch_sizes(plan.budget.batch_size))
        self._batches_per_epoch = min(n_batches, plan.budget.max_steps or n_batches)
        # A progress bar divides the numbers of rows by these numbers and rounds up.
        self.iterator_train__batch_size = math.nextafter(len(train) / n_batches, math.inf)
        self.iterator_valid__batch_size = 1 if valid is None else len(valid)
        self.verbose = plan.verbose
        self.callbacks = plan.callbacks + ([plan.contexts] if plan.contexts else [])
        self._has_callbacks = bool(plan.callbacks)
        for group in self.optimizer_.param_groups:
            group["weight_decay"] = plan.weight_decay if group["penalized"] else 0.0
            group["lr"] = self._rate = plan.rate(0.0)
        self._draws.progress, self._step.autocast = 1.0, plan.autocast
        self._schedule = Schedule(self._batches_per_epoch * plan.budget.max_epochs)
        self._best, self.first_epoch = None, len(self.history)
        start = {name: t.clone() for name, t in self.module_.state_dict().items()}
        before = None
        if valid is not None:
            self._best = BestEpoch()
            valid = valid.corrupted(self.generator)
            before = self.row_losses(valid)
            self._best.update(0, self.module_.reduce(*before).item(), self.module_, plan.tol)
        is_raised = plan.budget.max_epochs > 0 and self.module_.raise_noise()
        first_loss = self.evaluate(train) if is_raised else None
        self.initialize_callbacks()
        self.notify("on_train_begin", X=train, y=None)
        self.stopped_early = False
        self.duration.begin(is_shown=bool(plan.verbose))
        try:
            self._stop_if_out_of_patience()
            with threads_for(plan.budget.batch_size * self._n_weights):
                while self._schedule.done < self._schedule.n_steps:
                    self.fit_loop(train, valid, epochs=1)
        except StopTraining:
            self.stopped_early = True
        outcome = replace(self._outcome(train, valid, before), first_loss=first_loss)
        selects = valid is not None and plan.restore_best
        if not selects and returns_to_start is not None and returns_to_start(outcome):
            self.module_.load_state_dict(start)
            outcome = replace(outcome, epoch=0)
        self.module_.eval()
        del self._best, self._tables
        return outcome

    def _outcome(
        self,
        train: Batches,
        valid: Batches | None,
        before: tuple[Tensor, Tensor] | None,
    ) -> Outcome:
        """Restore the best epoch if validation rows select it, and describe the training.

        `before` contains the losses of the validation rows before training and their weights.
        """
        epoch, loss, change = len(self.history) - self.first_epoch, self.evaluate(train), None
        if valid is not None and before is not None:
            losses, weight = before
            after = self.row_losses(valid)[0]
            change = paired_change(losses, after, weight, self.module_.trim)
        if self._best is not None and self.plan.restore_best:
            epoch = self._best.epoch
            self.module_.load_state_dict(self._best.state)
            loss = self.evaluate(train) if epoch else loss
        if not math.isfinite(loss):
            raise DivergenceError(f"the objective became {loss}")
        return Outcome(epoch, loss, change)

    def fit_further(self, train: Batches, plan: Plan) -> None:
        """Train as `fit_rows`, but without an entry in the history or a call of a callback."""
        history, callbacks, first = as_history(self.history), self.callbacks_, self.first_epoch
        self.fit_rows(train, None, replace(plan, callbacks=[], verbose=0))
        self.history = history
        self.callbacks_ = callbacks
        self.first_epoch = first

    def reset_optimizer(self) -> None:
        """Discard the state of the optimizer, so that the next training starts without momentum."""
        with self._current_init_context("optimizer"):
            self.initialize_optimizer()

    def rebuild_optimizer(self) -> None:
        """Make an optimizer for the present parameters, and keep the state of those it had."""
        before = self.optimizer_.state
        self.reset_optimizer()
        known = [p for p in self._trainable_parameters() if p in before]
        self.optimizer_.restore({p: before[p] for p in known})

    def arrays(self) -> dict[str, Any]:
        """Return the training state (history, generator, optimizer), with tensors as arrays.

        The history has the completed epochs only, without the numbers of their batches. The state
        of the optimizer is an empty list before its first step.
        """
        states = [self.optimizer_.state[p] for p in self._trainable_parameters()]
        has_stepped = any(float(state["step"]) for state in states)
        return {
            "history": [epoch | {"batches": []} for epoch in self.history if "train_loss" in epoch],
            "generator": self.generator.get_state().numpy(),
            "optimizer": [to_arrays(state) for state in states if has_stepped],
        }

    def load_arrays(self, arrays: dict[str, Any]) -> None:
        """Restore a training state that `arrays` returned."""
        self.history = as_history(arrays["history"])
        state = torch.tensor(arrays["generator"])
        if len(state) == len(self.generator.get_state()):
            self.generator.set_state(state)
        else:
            # The state is that of a generator on another type of device.
            self.generator.manual_seed(derive_seed(state.numpy().tobytes(), "training"))
        states = map(to_tensors, arrays["optimizer"])
        self.optimizer_.restore(dict(zip(self._trainable_parameters(), states, strict=False)))

    def fingerprint(self) -> str:
        """Compute a text that identifies this training, before its first step.

        Two trainings have the same text if they have the same `plan.signature`, number of steps,
        batch size, learning rate, dtype, rows, initial weights and state of the generator.
        """
        digest = hashlib.sha256(self.plan.signature.encode())
        plan, n_steps = self.plan, self._schedule.n_steps
        settings = n_steps, plan.budget.batch_size, plan.learning_rate, str(self.dtype)
        digest.update(repr(settings).encode())
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
            "schedule": vars(self._schedule),
            "module": to_arrays(self.module_.state_dict()),
            "training": self.arrays(),
            "best": self._best and vars(self._best) | {"state": to_arrays(self._best.state)},
        }

    def resume_from(self, progress: dict[str, Any]) -> None:
        """Restore the state at the end of the epoch in which `progress` was called."""
        self._schedule = Schedule(**progress["schedule"])
        self.module_.load_state_dict(to_tensors(progress["module"]))
        self.load_arrays(progress["training"])
        if progress["best"] is not None:
            state = to_tensors(progress["best"]["state"])
            self._best = BestEpoch(**progress["best"] | {"state": state})

    def remove_checkpoints(self) -> None:
        """Remove the files from which this training could resume."""
        for path in self.checkpoints.values():
            path.unlink(missing_ok=True)
            files.remove_leftovers(path)

    @property
    def _n_weights(self) -> int:
        return sum(p.numel() for p in self.module_.parameters())

    def _trainable_parameters(self) -> list[Tensor]:
        return [p for p in self.module_.parameters() if p.requires_grad]

    def evaluate(self, rows: Batches) -> float:
        """Compute the objective on rows, with the same random draws in every call.

        Parts of the objective that are annealed have their value at the end of the schedule. The
        module is in evaluation mode afterwards.
        """
        return self.module_.reduce(*self.row_losses(rows)).item()

    def row_losses(self, rows: Batches) -> tuple[Tensor, Tensor]:
        """Compute the losses (n,) of rows, as in `evaluate`, and return them with the weights."""
        self.module_.eval()
        generator = torch.Generator(self.generator.device)
        generator.manual_seed(derive_seed(0, "evaluation"))
        draws = Draws(generator, self.dtype)
        weights, losses = [], []
        with torch.no_grad():
            for batch in rows.chunks(generator):
                weights.append(batch.weight)
                losses.append(self.module_.losses(draws, batch))
        return torch.cat(losses), torch.cat(weights)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        log = PrintLog(["traced_shapes", "event_trace_failures"], sink=print_plain)
        return [("epoch_timer", EpochTimer()), *([("print_log", log)] if self.verbose else [])]

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> "Net":
        self.optimizer_ = Adam(_groups(self.module_), lr=1e-3)
        self._draws = Draws(self.generator, self.dtype)
        self._step = Step(self.module_, self.optimizer_.parameters(), self._draws)
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
            # The validation rows are one batch for callbacks.
            rows = iterator.take(iterator.index) if self._has_callbacks else None
            loss = self._run_batch(rows, False, partial(self.evaluate, iterator))
            self.history.record("valid_loss", loss)
            return
        self.module_.train()
        losses, sizes = [], []
        batches = iterator.batches(self.plan.budget.batch_size, self.generator)
        for batch in itertools.islice(batches, self._batches_per_epoch):
            losses.append(self._run_batch(batch, True, partial(self._train_on, batch)))
            sizes.append(len(batch.x))
        weights = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
        mean = float(torch.stack(losses).cpu().double() @ weights)
        self.history.record("train_batch_count", len(sizes))
        self.history.record("train_loss", mean)
        # Steps that cannot be traced take twice the time, so the history records the reasons.
        self.history.record("traced_shapes", self._step.n_traced)
        # Loggers of skorch log all entries as numbers, unless their names start with "event_".
        self.history.record("event_trace_failures", self._step.failures)
        self._step.failures = []
        if not math.isfinite(mean):
            raise DivergenceError(f"the loss became {mean}")

    def _run_batch(self, batch: Batch | None, training: bool, step: Callable[[], _Loss]) -> _Loss:
        """Compute the loss of a batch with `step`, and notify callbacks before and after it."""
        if not self._has_callbacks or batch is None:
            return step()
        self.notify("on_batch_begin", batch=batch, training=training)
        loss = step()
        prefix = "train" if training else "valid"
        self.history.record_batch(f"{prefix}_loss", float(loss))
        self.history.record_batch(f"{prefix}_batch_size", len(batch.x))
        self.notify("on_batch_end", batch=batch, training=training, loss=loss, y_pred=None)
        return loss

    def _train_on(self, batch: Batch) -> Tensor:
        """Make a training step and return the loss of the batch before it."""
        schedule = self._schedule
        remaining = (schedule.n_steps - schedule.done) // self._batches_per_epoch
        full = len(batch.x) == self.plan.budget.batch_size
        if self.plan.from_start:
            self._draws.progress = schedule.position(ahead=1)
        if self._has_callbacks:
            self._check_untouched()
        loss, *gradients = self._step(
            batch, remaining * max(1, (self._batches_per_epoch - 1) if full else 1)
        )
        if self._has_callbacks:
            # Callbacks may change gradients in place, but those of a replayed step are reused.
            gradients = [gradient.clone() for gradient in gradients]
            for p, gradient in zip(self._step.params, gradients, strict=True):
                p.grad = gradient
            named = [*zip(self._step.names, self._step.params, strict=True)]
            self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
        self._rate = self.plan.rate(schedule.position())
        for group in self.optimizer_.param_groups:
            group["lr"] = self._rate
        self.optimizer_.update(gradients, self._rate)
        self.module_.after_step(self._draws, batch)
        schedule.done += 1
        self.duration.check(schedule.n_steps - schedule.done)
        return loss

    def _check_untouched(self) -> None:
        """Raise ValueError if a callback has made changes that training would ignore."""
        if any(group["lr"] != self._rate for group in self.optimizer_.param_groups):
            raise ValueError(
                "A callback has changed the learning rate, but the schedule of the fit determines "
                "it. Set the parameter learning_rate instead."
            )
        for name, p in zip(self._step.names, self._step.params, strict=True):
            if not p.requires_grad:
                raise ValueError(
                    f"A callback has frozen the weights {name!r}, but all weights are trained. "
                    "Remove the callback."
                )

    @property
    def epochs_done(self) -> int:
        """Number of completed epochs of the latest training."""
        return self._schedule.done // self._batches_per_epoch

    def _stop_if_out_of_patience(self) -> None:
        """Raise StopTraining if the validation loss has not improved for `plan.patience` epochs.

        A decrease of at most `plan.tol` is no improvement. Only epochs in the second half of the
        schedule are counted.
        """
        if self._best is not None and self.plan.patience is not None:
            since = max(self._best.waiting_since, self.plan.budget.max_epochs // 2)
            if self.epochs_done - since >= self.plan.patience:
                raise StopTraining

    @property
    def n_optimizer_steps(self) -> float:
        """Number of steps of the optimizer since it was initialized."""
        return max(float(self.optimizer_.state[p]["step"]) for p in self._trainable_parameters())

    def on_epoch_begin(self, net: NeuralNet, **kwargs: object) -> None:
        # The history may contain the latest epochs only.
        before = self.history[-1]["epoch"] if self.history else 0
        super().on_epoch_begin(net, **kwargs)
        self.history.record("epoch", before + 1)

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        if self._best is not None:
            loss = self.history[-1, "valid_loss"]
            improved = self._best.update(self.epochs_done, loss, self.module_, self.plan.tol)
            self.history.record("valid_loss_best", improved)
            budget, may_cut = self.plan.budget, self._schedule.may_be_cut()
            may_cut &= budget.may_cut and self.plan.restore_best
            if may_cut and self._best.has_stalled(self.epochs_done, budget.max_epochs):
                self._schedule.cut(self._batches_per_epoch)

    def notify(self, method_name: str, **kwargs: object) -> None:
        getattr(self, method_name)(self, **kwargs)
        answers = [self._call(callback, method_name, kwargs) for _, callback in self.callbacks_]
        if method_name == "on_epoch_end":
            if any(isinstance(answer, (bool, np.bool_)) and answer for answer in answers):
                raise StopTraining
            self._stop_if_out_of_patience()

    def _call(self, callback: Callback, hook: str, kwargs: dict[str, object]) -> object:
        """Call a method of a callback. At the end of an epoch, True means that training stops."""
        try:
            return getattr(callback, hook)(self, **kwargs)
        except KeyboardInterrupt as error:
            if not is_early_stop(error):
                raise
            return True


def is_early_stop(error: KeyboardInterrupt) -> bool:
    """Return whether skorch's EarlyStopping has raised an exception in order to stop training.

    A user who presses Ctrl-C while this callback runs raises the same exception, but never in the
    instruction of a `raise` statement.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code
    is_own = code is EarlyStopping.on_epoch_end.__code__
    return is_own and code.co_code[traceback.tb_lasti] == RAISE


def as_history(epochs: list[dict[str, Any]]) -> History:
    """Convert a list of epochs to a skorch history, whose entries may be changed independently."""
    return History([dict(epoch) for epoch in epochs])


def check_well_formed(arrays: Any, module: nn.Module) -> None:
    """Raise ValueError if `arrays` from a file are not a valid training state for a module."""
    if not isinstance(arrays, dict) or arrays.keys() != {"history", "generator", "optimizer"}:
        raise ValueError("the training state must consist of history, generator and optimizer")
    if not all(matches_type(arrays[name], list[dict]) for name in ("history", "optimizer")):
        raise ValueError("history and optimizer must be lists of dictionaries")
    for epoch in arrays["history"]:
        if not all(
            matches_type(epoch.get(name, 0.0), float) for name in ("train_loss", "valid_loss")
        ) or not matches_type(epoch.get("epoch", 0), int):
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
