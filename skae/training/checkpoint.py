"""Callbacks: checkpoints of a training, and scikit-learn's view of its epochs."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sklearn.callback import CallbackContext

from skae import files
from skae.training.loop import Callback, Net, StopTraining


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

    may_stop = False
    """Ctrl-C while it writes is the user's, no word to stop training at this epoch."""

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
