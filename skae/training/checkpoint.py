"""Callbacks that write checkpoints and that forward epochs to scikit-learn's callbacks."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackContext

from skae import files
from skae.training.callbacks import without_names
from skae.training.loop import Callback, Net


class Checkpoint(Callback):
    """Callback that lets an interrupted fit resume from the last completed epoch.

    At the end of each epoch, the complete training state is written to a file: the weights, the
    state of the optimizer, the state of the random generator, the history, the position in the
    schedule and the best epoch. If the same fit is started again, in the same or in another
    process, it resumes from the file. Its result is then bitwise equal to that of a fit without an
    interruption. The fit is the same if the estimator has the same parameters, except `callbacks`
    and `verbose`, and is passed the same rows on a device of the same type.

    The file is removed when the estimator, or the detector, classifier or regressor that contains
    it, has its new model, also if early stopping or another
    callback ends the training. If training diverges, so that the fit raises ValueError, the file is
    removed, too: the same fit then starts anew. If the fit is interrupted or fails for another
    reason, the file stays. Each fit has its own file, so that the fits of a grid search can share a
    folder. The pre-training of `layerwise_epochs`, and the epochs on all rows after the validation
    rows have been used, are not part of the checkpoint and are repeated.

    Other callbacks are notified only of the epochs after the resumption, and the checkpoint does
    not contain their state. Use `n_iter_no_change` for early stopping, because its state is part of
    the checkpoint.

    Parameters
    ----------
    folder : str or path-like
        Folder in which checkpoints are written. It is created, with its parents, if it does not
        exist.

    Raises
    ------
    ValueError
        By `fit` and `partial_fit`, if the estimator's `random_state` is None, if its `corruption`,
        its `architecture` or a callable parameter cannot be pickled, or if the file is damaged.
    OSError
        By `fit` and `partial_fit`, if the folder cannot be created or a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from skae import Autoencoder, Checkpoint
    >>> X = [[0.0, 1.0], [1.0, 3.0], [2.0, 5.0]]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     # If this fit is interrupted, the same call of `fit` resumes it.
    ...     autoencoder = Autoencoder(1, callbacks=[Checkpoint(folder)], random_state=0)
    ...     autoencoder.fit(X).transform(X).shape
    (3, 1)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder

    def on_train_begin(self, net: Net, *args: object, **kwargs: object) -> None:
        path = Path(self.folder) / f"{net.fingerprint()}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            net.resume_from(files.read(path, "checkpoint")[1])
        net.checkpoints[self] = path

    def on_epoch_end(self, net: Net, **kwargs: object) -> None:
        files.write(net.checkpoints[self], "checkpoint", net.progress())


def has_checkpoint(callbacks: Any) -> bool:
    """Return whether a list of callbacks has a Checkpoint, so that another process can resume."""
    return any(isinstance(callback, Checkpoint) for callback in without_names(callbacks))


_pending: ContextVar[list[Callable[[], None]] | None] = ContextVar("_pending", default=None)
"""Functions that remove the checkpoints of fits within a larger fit, or None outside of one."""


@contextmanager
def keeping_checkpoints() -> Iterator[None]:
    """Keep the checkpoints of the fits in this context until it ends without an error."""
    pending: list[Callable[[], None]] = []
    token = _pending.set(pending)
    try:
        yield
    finally:
        _pending.reset(token)
    for remove in pending:
        remove()


def remove_when_complete(remove: Callable[[], None]) -> None:
    """Call a function that removes checkpoints, at the end of `keeping_checkpoints` if in it."""
    pending = _pending.get()
    if pending is None:
        remove()
    else:
        pending.append(remove)


@dataclass(eq=False)
class EpochContexts(Callback):
    """Callback that notifies scikit-learn's callbacks of the start and the end of each epoch.

    Training stops if one of scikit-learn's callbacks returns True at the end of an epoch.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        Callback context of the fit.
    estimator : estimator
        Estimator that is being fitted.
    data : dict
        Rows, targets and metadata of the fit, as keyword arguments of the hooks.
    attributes : callable
        Function of the net that returns a dict of the fitted attributes that the estimator would
        have with the current weights.
    """

    context: CallbackContext
    estimator: object
    data: dict[str, Any]
    attributes: Callable[[Net], dict[str, object]]

    def on_epoch_begin(self, net: Net, **kwargs: object) -> None:
        self.epoch_ = self.context.subcontext(task_name="epoch")
        self.epoch_.call_on_fit_task_begin(**self._arguments(net))

    def on_epoch_end(self, net: Net, **kwargs: object) -> bool:
        return self.epoch_.call_on_fit_task_end(**self._arguments(net))

    def _arguments(self, net: Net) -> dict[str, Any]:
        attributes = partial(self.attributes, net)
        return self.data | {"estimator": self.estimator, "reconstruction_attributes": attributes}


def signature(estimator: BaseEstimator) -> str:
    """Return a text that identifies an autoencoder and the parameters that determine its result.

    Checkpoints use it to recognize the fit to which they belong. It does not contain
    `random_state`: `Net.fingerprint` adds the state of the random generator. Raises ValueError if
    a parameter cannot be pickled.
    """
    parameters = estimator.get_params(deep=False)
    for name in ("callbacks", "random_state", "verbose", "device"):
        del parameters[name]
    # The repr of these values does not identify them, so their pickles are used.
    names = [
        name
        for name, value in parameters.items()
        if name in ("corruption", "architecture")
        or callable(value)
        or isinstance(value, np.ndarray)
    ]
    values = [parameters.pop(name) for name in names]
    try:
        content = pickle.dumps(values)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{', '.join(names)} must be picklable when callbacks contain a Checkpoint, so that "
            "another process can recognize the fit. Use functions and classes that are defined in "
            "a module."
        ) from error
    return f"{type(estimator).__qualname__} {parameters} {content!r}"
