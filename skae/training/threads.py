"""The number of torch threads during fits and predictions, and the choice of the device."""

import threading
from contextlib import AbstractContextManager
from typing import Self

import torch

from skae.nn.locks import at_fork


class _OneThread(AbstractContextManager["_OneThread"]):
    """Context manager that limits torch to one thread while any fit or prediction runs.

    The matrix products of small networks are too small to be divided among threads. On a busy
    machine, more threads make them slower by orders of magnitude.

    In this text, a call is a fit or a prediction of this process. The first call that enters stores
    the number of torch threads, and the last one that exits restores it. torch has a separate
    number for each Python thread. If a Python thread exits while calls of other threads run, its
    number is only restored after a later call of this thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_fits = 0
        self._n_threads = 1
        self._local = threading.local()

    def __enter__(self) -> Self:
        with self._lock:
            own = getattr(self._local, "n_threads", torch.get_num_threads())
            self._n_threads = own if self._n_fits == 0 else max(own, self._n_threads)
            self._local.n_threads = self._n_threads
            self._n_fits += 1
            torch.set_num_threads(1)
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_fits -= 1
            if self._n_fits == 0:
                torch.set_num_threads(self._local.n_threads)
                del self._local.n_threads


one_thread = _OneThread()

# Otherwise, a process that is forked from one with several torch threads would wait for these
# threads forever.
at_fork(after_in_child=lambda: torch.set_num_threads(1))


def choose_device(device: str) -> torch.device:
    """Return the device with a given name. "auto" is the first available of cuda, mps and cpu.

    Raises ValueError if the name is unknown to torch or the device is not available.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros((), device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device!r} is not available: {error}") from None
    return chosen
