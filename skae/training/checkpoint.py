"""Callbacks that write checkpoints and that forward epochs to scikit-learn's callbacks."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sklearn.callback import CallbackContext

from skae import files
from skae.training.loop import Callback, Net, StopTraining


class Checkpoint(Callback):
    """Callback that lets an interrupted fit resume from the last completed epoch.

    At the end of each epoch, the complete training state is written to a file: the weights, the
    state of the optimizer, the state of the random generator, the history, the position in the
    schedule and the best epoch. If the same fit is started again, in the same or in another
    process, it resumes from the file. Its result is then bitwise equal to that of a fit without an
    interruption. The fit is the same if the estimator has the same parameters, except `callbacks`
    and `verbose`, and is passed the same rows on a device of the same type.

    The file is removed when training ends normally, also if early stopping or another callback ends
    it. Each fit has its own file, so that the fits of a grid search can share a folder. The
    pre-training of `layerwise_epochs` is not part of the checkpoint and is repeated.

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

    may_stop = False
    """Whether a KeyboardInterrupt from this callback stops training but lets the fit end normally.

    It is False, because pressing Ctrl-C while a checkpoint is written should interrupt the fit.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder

    def on_train_begin(self, net: Net, *args: object, **kwargs: object) -> None:
        self.path_ = Path(self.folder) / f"{net.fingerprint()}.safetensors"
        self.path_.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            net.resume_from(files.read(self.path_, "checkpoint")[1])

    def on_epoch_end(self, net: Net, **kwargs: object) -> None:
        files.write(self.path_, "checkpoint", net.progress())

    def on_train_end(self, net: Net, *args: object, **kwargs: object) -> None:
        self.path_.unlink(missing_ok=True)
        files.remove_leftovers(self.path_)


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
    X : array-like
        Training rows, as they were passed to `fit`.
    attributes : callable
        Function of the net that returns a dict of the fitted attributes that the estimator would
        have with the current weights.
    """

    context: CallbackContext
    estimator: object
    X: object
    attributes: Callable[[Net], dict[str, object]]

    def on_epoch_begin(self, net: Net, **kwargs: object) -> None:
        self.epoch_ = self.context.subcontext(task_name="epoch")
        self.epoch_.call_on_fit_task_begin(estimator=self.estimator, X=self.X)

    def on_epoch_end(self, net: Net, **kwargs: object) -> None:
        if self.epoch_.call_on_fit_task_end(
            estimator=self.estimator,
            X=self.X,
            reconstruction_attributes=lambda: self.attributes(net),
        ):
            raise StopTraining
