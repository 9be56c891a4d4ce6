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
    """Callback that lets a killed fit resume from the last completed epoch.

    At the end of each epoch, the complete training state is written to a file: weights, optimizer,
    generator, position in the schedule and best epoch. If the same fit is started again, in any
    process, with the same rows and parameters, it resumes from the file and produces the same
    bits as a fit that was never interrupted. The file is removed when training ends. Each fit has
    its own file, so that the fits of a grid search can share a folder.

    Other callbacks are not notified of epochs before the interruption. Use `n_iter_no_change` for
    early stopping, because its state is part of the checkpoint.

    Parameters
    ----------
    folder : str or path-like
        Folder in which checkpoints are written. It is created if it does not exist.

    Raises
    ------
    ValueError
        If the estimator's `random_state` is None, its `corruption` cannot be pickled, or the file
        is damaged. It is raised by `fit`.

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

    may_stop = False
    """Whether KeyboardInterrupt from this callback stops training but lets the fit end normally.

    False, because pressing Ctrl-C while a checkpoint is written should interrupt the fit.
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


@dataclass(eq=False)
class EpochContexts(Callback):
    """Callback that forwards epochs to scikit-learn's callbacks.

    Training stops if one of them returns True at the end of an epoch.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        Callback context of the fit.
    estimator : estimator
        Estimator that is being fitted.
    X : array
        Training rows.
    attributes : callable
        Function of the net that computes the fitted attributes as if training stopped now.
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
