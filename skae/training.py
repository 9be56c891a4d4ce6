"""The fit: skorch's loop over rows in memory, its schedule, threads, devices and best epoch."""

import copy
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from numpy.typing import NDArray
from sklearn.callback import CallbackContext
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer, PrintLog
from skorch.history import History
from torch import Tensor, nn

from skae import files
from skae.nn.corruption import Corruption, Named
from skae.nn.draws import Draws
from skae.nn.locks import at_fork
from skae.nn.network import Network
from skae.nn.shallow import shallow_layers
from skae.nn.step import Adam, Batch, Step

WARM_UP = 0.25
"""Share of a one-cycle schedule in which the rate rises."""

COPIED_CELLS = 2**17
"""Cells of rows copied at a time for training: they stay in the processor's cache."""

EVALUATED_CELLS = 2**18
EVALUATED_ROWS = 2048
"""Cells and rows evaluated at a time at most: rows of few columns have as many hidden units."""


class _OneThread(AbstractContextManager["_OneThread"]):
    """Run small nets with one torch thread, counting the fits of the whole process.

    Their products are too small to share: with more threads a busy machine is slower by orders of
    magnitude. The first fit in lowers the count, the last one out restores it. torch keeps the
    count for each thread, so one that leaves while others go on has its own back after its next
    call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fits = 0
        self._before = 1
        self._local = threading.local()

    def __enter__(self) -> Self:
        with self._lock:
            here = getattr(self._local, "before", torch.get_num_threads())
            self._before = here if self._fits == 0 else max(here, self._before)
            self._local.before = self._before
            self._fits += 1
            torch.set_num_threads(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._fits -= 1
            if self._fits == 0:
                torch.set_num_threads(self._local.before)
                del self._local.before


one_thread = _OneThread()

# A child forked from a process that has used several torch threads would wait for them for ever.
at_fork(after_in_child=lambda: torch.set_num_threads(1))


def choose_device(device: str) -> torch.device:
    """The device called `device`; "auto" is the first of cuda, mps and cpu that is there.

    Raises ValueError where torch does not know the name or the device is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros((), device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device!r} is not available here: {error}") from None
    return chosen


@dataclass
class Rows:
    """The training or the held-out rows of a table on the training device, never copied as a whole.

    `parts` are the table's weights, what the encoder sees of it, where that is a spoilt version or
    facts follow the clean rows that the loss is on, and facts about rows; `index` says which of its
    rows are meant. `corrupt`, where given, spoils every batch anew; cells that may be missing where
    the table `has_gaps` stay so, and the last `n_given` columns are never spoilt.
    """

    parts: Batch
    index: Tensor
    corrupt: Corruption | None = None
    has_gaps: bool = False
    n_given: int = 0

    @classmethod
    def all(cls, *parts: Tensor) -> Self:
        """All rows of a table."""
        return cls(parts, torch.arange(len(parts[0]), device=parts[0].device))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_columns(self) -> int:
        """Columns of the table."""
        return self.parts[1].shape[1]

    def taken(self, index: Tensor) -> Batch:
        """Copies of the parts' rows at some of the table's row numbers."""
        return tuple([part.index_select(0, index) for part in self.parts])

    def corrupted(self, generator: torch.Generator) -> "Rows":
        """The same rows, spoilt once and for all."""
        if self.corrupt is None:
            return self
        return Rows.all(*self._spoil(self.taken(self.index), generator))

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All rows in a new order, `size` at a time; in the given order where one batch has all."""
        order = torch.randperm(len(self), generator=generator, device=generator.device)
        index = self.index if size >= len(self) else self.index[order]
        # Small batches are copied many at a time: such a copy costs more to call than to make.
        for block in index.split(size * max(1, COPIED_CELLS // (size * self.n_columns))):
            copies = [part.split(size) for part in self.taken(block)]
            for batch in zip(*copies, strict=True):
                yield self._spoil(batch, generator)

    def chunks(self, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """All rows in their order, some at a time; spoilt where there is a generator for it."""
        size = max(1, min(EVALUATED_ROWS, EVALUATED_CELLS // self.n_columns))
        for index in self.index.split(size):
            batch = self.taken(index)
            yield batch if generator is None else self._spoil(batch, generator)

    def _spoil(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self.corrupt is None:
            return batch
        like, told = batch[1].tensor_split([self.n_columns - self.n_given], dim=1)
        # A corruption may work in place, and what it sees is often the target, too.
        spoilt: object = self.corrupt(like.clone(), generator)
        kind = (like.shape, like.dtype)
        if not isinstance(spoilt, Tensor) or (spoilt.shape, spoilt.dtype) != kind:
            raise TypeError(
                f"corruption must return a tensor of shape {tuple(like.shape)} and dtype "
                f"{like.dtype}, as it is given; it returned {spoilt!r}."
            )
        if not spoilt.isfinite().all() and like.isfinite().all():
            raise ValueError("corruption returned NaN or infinite values.")
        if self.has_gaps:
            # What is missing stays so, and no more gets lost.
            spoilt = torch.where(like.isnan() | spoilt.isnan(), like, spoilt)
        if self.n_given:
            spoilt = torch.cat([spoilt, told], 1)
        return batch[0], spoilt, *(batch[2:] or batch[1:])


@dataclass
class Plan:
    """How to train: plain numbers, free of any model."""

    learning_rate: float
    max_epochs: int
    batch_size: int
    weight_decay: float = 0.0
    one_cycle: bool = True
    restore_best: bool = True
    patience: int | None = None
    tol: float = 0.0
    autocast: bool = False
    verbose: int = 0
    callbacks: list[Callback] = field(default_factory=list)
    contexts: Callback | None = None
    anew: bool = True
    """Whether training begins, so that parts of the objective may rise with its schedule."""
    signature: str = ""
    """What else decides the result: the estimator and its parameters."""

    def rate(self, progress: float) -> float:
        """Learning rate at a share of the schedule: up and down a cosine, or constant."""
        if not self.one_cycle:
            return self.learning_rate
        if progress < WARM_UP:
            height = 0.5 - 0.5 * math.cos(math.pi * progress / WARM_UP)
            return self.learning_rate * (0.04 + 0.96 * height)
        height = 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))
        return self.learning_rate * max(height, 1e-4)


class StopTraining(Exception):
    """Raised in an epoch's end to leave the loop; the fit goes on as if all epochs were done."""


class Net(NeuralNet):
    """skorch's net with the objective inside the module and rows in memory.

    `fit_rows` is its only entry point for training: it keeps the optimiser, the history and the
    generator, so that a second call continues the first.
    """

    plan: Plan
    generator: torch.Generator

    @classmethod
    def over(cls, module: nn.Module, generator: torch.Generator) -> "Net":
        """A net around an initialised module, with its generator on the module's device."""
        parameter = next(module.parameters())
        net = cls(module, criterion=nn.Identity, device=str(parameter.device), verbose=0)
        net.generator = generator
        net.dtype = parameter.dtype
        return net.initialize()

    def duplicate(self, module: nn.Module) -> "Net":
        """A net in the same state that shares nothing with this one, around a module like its own.

        Raises RuntimeError where the module has other parameters.
        """
        module.load_state_dict(self.module_.state_dict())
        generator = torch.Generator(self.generator.device)
        generator.set_state(self.generator.get_state())
        net = Net.over(module, generator)
        for old, new in zip(self._trained(), net._trained(), strict=True):
            for name, value in self.optimizer_.state[old].items():
                net.optimizer_.state[new][name].copy_(value)
        net.history = History(copy.deepcopy(list(self.history)))
        return net

    def fit_rows(self, train: Rows, valid: Rows | None, plan: Plan) -> tuple[int, float]:
        """Train; returns the epoch whose weights the module then has, and the last one's objective.

        That is the best one on held-out rows where the plan wants it, else the last one. Epoch 0 is
        the start, before any step.
        """
        self.plan = plan
        self._tables = [train] if valid is None else [train, valid]
        self.verbose = plan.verbose
        self.callbacks = plan.callbacks + ([plan.contexts] if plan.contexts else [])
        self._listening = bool(plan.callbacks)
        for group in self.optimizer_.param_groups:
            group["weight_decay"] = plan.weight_decay if group["penalized"] else 0.0
        self._draws = Draws(self.generator, self.dtype)
        self._step = Step(self.module_, self.optimizer_.parameters(), self._draws, plan.autocast)
        self._batches_per_epoch = math.ceil(len(train) / plan.batch_size)
        self._steps_done, self._steps = 0, self._batches_per_epoch * plan.max_epochs
        self._best = _Best(self.module_, plan) if valid is not None else None
        first_epoch = len(self.history)
        if self._best is not None:
            assert valid is not None
            valid = valid.corrupted(self.generator)
            self._best.offer(0, self.evaluate(valid))
        self.initialize_callbacks()
        self.notify("on_train_begin")
        with suppress(StopTraining):
            self._stop_where_patience_ended()
            self.fit_loop(train, valid, epochs=plan.max_epochs - self._epochs_done)
        last, end = len(self.history) - first_epoch, self.evaluate(train)
        kept = self._best.restore() if self._best is not None and plan.restore_best else last
        self.notify("on_train_end")
        self.module_.eval()
        del self._step, self._draws, self._best, self._tables
        return kept, end

    def forget_momentum(self) -> None:
        """Drop the optimiser's state: the next training starts a new one."""
        with self._current_init_context("optimizer"):
            self.initialize_optimizer()

    def arrays(self) -> dict[str, Any]:
        """What training needs to go on, in numpy arrays: history, generator and any momentum."""
        states = [self.optimizer_.state[p] for p in self._trained()]
        moved = any(float(state["step"]) for state in states)
        return {
            "history": list(self.history),
            "generator": self.generator.get_state().numpy(),
            "optimizer": [
                {name: value.cpu().numpy() for name, value in state.items()} for state in states
            ]
            if moved
            else [],
        }

    def load_arrays(self, arrays: dict[str, Any]) -> None:
        """Go back to a state given by `arrays`."""
        self.history = History(arrays["history"])
        state = torch.tensor(arrays["generator"])
        # Devices' generators differ in size: training goes on from a fresh one on another device.
        if len(state) == len(self.generator.get_state()):
            self.generator.set_state(state)
        for p, saved in zip(self._trained(), arrays["optimizer"], strict=False):
            for name, value in saved.items():
                self.optimizer_.state[p][name].copy_(torch.tensor(value))

    def fingerprint(self) -> str:
        """A text that tells this training from all others; known before its first step."""
        digest = hashlib.sha256(self.plan.signature.encode())
        digest.update(repr((self._steps, self.plan.batch_size, str(self.dtype))).encode())
        for tensor in (
            self.generator.get_state(),
            *self.module_.state_dict().values(),
        ):
            digest.update(tensor.cpu().numpy().tobytes())
        for rows in self._tables:
            digest.update(rows.index.cpu().numpy().tobytes())
            for chunk in rows.chunks():
                for part in chunk:
                    digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()[:32]

    def progress(self) -> dict[str, Any]:
        """All that training needs to go on from this epoch's end, in numbers and arrays."""
        return {
            "steps_done": self._steps_done,
            "module": to_arrays(self.module_.state_dict()),
            "training": self.arrays(),
            "best": self._best.progress() if self._best is not None else None,
        }

    def go_on_from(self, progress: dict[str, Any]) -> None:
        """Go to the epoch's end at which `progress` was taken."""
        self._steps_done = progress["steps_done"]
        self.module_.load_state_dict(to_tensors(progress["module"]))
        self.load_arrays(progress["training"])
        if self._best is not None:
            self._best.go_on_from(progress["best"])

    def _trained(self) -> list[Tensor]:
        return [p for p in self.module_.parameters() if p.requires_grad]

    def evaluate(self, rows: Rows) -> float:
        """The objective on rows by chunks, at the schedule's end; its draws are always the same."""
        self.module_.eval()
        generator = torch.Generator(self.generator.device).manual_seed(0)
        draws = Draws(generator, self.dtype)
        weights, losses = [], []
        with torch.no_grad():
            for weight, *parts in rows.chunks(generator):
                weights.append(weight)
                losses.append(self.module_.losses(draws, weight, *parts))
            return self.module_.reduce(torch.cat(losses), torch.cat(weights)).item()

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        callbacks: list[tuple[str, Callback]] = [("epoch_timer", EpochTimer())]
        if self.verbose:
            callbacks.append(("print_log", PrintLog()))
        return callbacks

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> "Net":
        self.optimizer_ = Adam(_groups(self.module_), lr=1e-3)
        return self

    def get_split_datasets(
        self, X: Rows, y: Rows | None = None, **fit_params: object
    ) -> tuple[Rows, Rows | None]:
        return X, y

    def get_iterator(self, dataset: Rows, training: bool = False) -> Rows:
        return dataset

    def run_single_epoch(
        self,
        iterator: Rows | None,
        training: bool,
        prefix: str,
        step_fn: Callable[..., object],
        **fit_params: object,
    ) -> None:
        if iterator is None:
            return
        if not training:
            self.history.record("valid_loss", self.evaluate(iterator))
            return
        self.module_.train()
        self.history.new_batch()
        losses, sizes = [], []
        for batch in iterator.batches(self.plan.batch_size, self.generator):
            if self._listening:
                self.notify("on_batch_begin", batch=batch, training=True)
            loss = self.train_step(batch)["loss"]
            losses.append(loss)
            sizes.append(len(batch[0]))
            if self._listening:
                self.notify("on_batch_end", batch=batch, training=True, loss=loss, y_pred=None)
        weights = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
        mean = float(torch.stack(losses).cpu().double() @ weights)
        self.history.record_batch("train_loss", mean)
        self.history.record_batch("train_batch_size", sum(sizes))
        self.history.record("train_batch_count", len(sizes))
        self.history.record("train_loss", mean)
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss became {mean}")

    def train_step(self, batch: Batch, **fit_params: object) -> dict[str, Tensor]:
        remaining = (self._steps - self._steps_done) // self._batches_per_epoch
        full = len(batch[0]) == self.plan.batch_size
        if self.plan.one_cycle and self.plan.anew:
            self._draws.progress = (self._steps_done + 1) / self._steps
        loss, *gradients = self._step(
            batch, remaining * max(1, (self._batches_per_epoch - 1) if full else 1)
        )
        if self._listening:
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
        self.module_.after_step(self._draws, *batch)
        self._steps_done += 1
        return {"loss": loss}

    @property
    def _epochs_done(self) -> int:
        return self._steps_done // self._batches_per_epoch

    def _stop_where_patience_ended(self) -> None:
        if self._best is not None and self._best.patience_ended(self._epochs_done):
            raise StopTraining

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        if self._best is not None:
            improved = self._best.offer(self._epochs_done, self.history[-1, "valid_loss"])
            self.history.record("valid_loss_best", improved)

    def notify(self, method_name: str, **kwargs: object) -> None:
        getattr(self, method_name)(self, **kwargs)
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **kwargs)
            except KeyboardInterrupt:
                # A user's callback says "stop" this way, as skorch's own do.
                stops = callback in self.plan.callbacks and not isinstance(callback, Checkpoint)
                if method_name != "on_epoch_end" or not stops:
                    raise
                raise StopTraining from None
        if method_name == "on_epoch_end":
            self._stop_where_patience_ended()


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


class _Best:
    """Remembers the weights of the epoch that does best on held-out rows."""

    def __init__(self, module: nn.Module, plan: Plan) -> None:
        self._module = module
        self._plan = plan
        self._loss = math.inf
        self._state: dict[str, Tensor] = {}
        self._waiting_since = 0
        self._reference = math.inf
        self.epoch = 0

    def offer(self, epoch: int, loss: float) -> bool:
        """Note an epoch's held-out loss; True where it is the best so far."""
        if loss < self._reference - self._plan.tol:
            self._reference, self._waiting_since = loss, epoch
        if not loss < self._loss:
            return False
        self._loss, self.epoch = loss, epoch
        self._state = {k: v.detach().clone() for k, v in self._module.state_dict().items()}
        return True

    def patience_ended(self, epoch: int) -> bool:
        """Whether, in the schedule's second half, nothing has improved for `patience` epochs."""
        patience = self._plan.patience
        if patience is None:
            return False
        since = max(self._waiting_since, self._plan.max_epochs // 2)
        return epoch - since >= patience

    def progress(self) -> dict[str, Any]:
        """What is remembered, in numbers and arrays."""
        return {
            "loss": self._loss,
            "epoch": self.epoch,
            "waiting_since": self._waiting_since,
            "reference": self._reference,
            "state": to_arrays(self._state),
        }

    def go_on_from(self, progress: dict[str, Any]) -> None:
        """Remember what `progress` tells."""
        self._loss, self.epoch = progress["loss"], progress["epoch"]
        self._waiting_since, self._reference = progress["waiting_since"], progress["reference"]
        self._state = to_tensors(progress["state"])

    def restore(self) -> int:
        """Give the module the best epoch's weights; returns that epoch."""
        self._module.load_state_dict(self._state)
        return self.epoch


def pretrain(network: Network, train: Rows, plan: Plan, generator: torch.Generator) -> None:
    """Train each hidden layer as a shallow autoencoder on the codes of the layer below.

    Works from the rows inwards; the output of a linear skip is left as it was. What spoils rows
    spoils codes, too, unless it is the user's own: that is for rows.
    """
    # Facts are of no use to layers.
    rows = Rows(train.parts[:3], train.index, train.corrupt, n_given=train.n_given)
    for layer in shallow_layers(network):
        Net.over(layer, generator).fit_rows(rows, None, plan)
        weight, *_, x = rows.taken(rows.index)
        with torch.no_grad():
            codes = layer.encode(x)
        rows = Rows.all(weight, codes)
        if isinstance(train.corrupt, Named):
            rows.corrupt = train.corrupt.of_codes(codes, weight)
    for body in (network.encoder, network.decoder):
        body.zero_residual()


class Checkpoint(Callback):
    """Callback that lets a fit which was killed go on where it was.

    At the end of each epoch all that training needs is written to a file: weights, optimiser,
    generator, place in the schedule, best epoch. The same fit, started again with the same rows
    and parameters in any process, goes on from there and ends at the same bits as one that was
    never interrupted. When training is done the file is removed. Each fit has a file of its own,
    so that the fits of a grid search may share a folder.

    Other callbacks do not learn of the epochs before the interruption; patience should be
    `n_iter_no_change`, which is written, too.

    Parameters
    ----------
    folder : str or path-like
        Where to write; made if it is not there.

    Raises
    ------
    ValueError
        At fit, where the estimator has no `random_state`, its `corruption` cannot be pickled, or
        the file is damaged.

    Examples
    --------
    >>> import tempfile
    >>> from skae import Autoencoder, Checkpoint
    >>> X = [[0.0, 1.0], [1.0, 3.0], [2.0, 5.0]]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     autoencoder = Autoencoder(1, callbacks=[Checkpoint(folder)], random_state=0)
    ...     autoencoder.fit(X).transform(X).shape
    (3, 1)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder

    def on_train_begin(
        self, net: Net, X: object = None, y: object = None, **kwargs: object
    ) -> None:
        self.path_ = Path(self.folder) / f"{net.fingerprint()}.safetensors"
        self.path_.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            net.go_on_from(files.read(self.path_, "checkpoint"))

    def on_epoch_end(self, net: Net, **kwargs: object) -> None:
        files.write(self.path_, "checkpoint", net.progress())

    def on_train_end(self, net: Net, *args: object, **kwargs: object) -> None:
        self.path_.unlink(missing_ok=True)


class EpochContexts(Callback):
    """Tells scikit-learn's callbacks of each epoch; one that returns True stops the fit.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        The fit's.
    estimator : estimator
    X : array
        Training rows.
    attributes : callable
        Given the net, the fitted attributes as if training had stopped here.
    """

    def __init__(
        self,
        context: CallbackContext,
        estimator: object,
        X: object,
        attributes: Callable[[Net], dict[str, object]],
    ) -> None:
        self.context = context
        self.estimator = estimator
        self.X = X
        self.attributes = attributes

    def on_epoch_begin(self, net: NeuralNet, **kwargs: object) -> None:
        self.epoch_ = self.context.subcontext(task_name="epoch")
        self.epoch_.call_on_fit_task_begin(estimator=self.estimator, X=self.X)

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        if self.epoch_.call_on_fit_task_end(
            estimator=self.estimator,
            X=self.X,
            reconstruction_attributes=lambda: self.attributes(net),
        ):
            raise StopTraining
