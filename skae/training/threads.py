"""The number of torch threads during fits and predictions, and the choice of the device.

torch keeps one number of threads for each Python thread, and one with which further Python threads
start. `torch.set_num_threads` sets both. A fit or a prediction lowers the number of its own thread
alone: a short-lived thread, the keeper, reads the number for further threads before each change and
restores it afterwards. Each call restores the number of its own thread when it ends. Ctrl-C cannot
interrupt the keeper, because signal handlers run in the main thread. Only a thread that uses torch
for the first time during a change, and not by a call of an estimator, starts with the lower number.

A forked child has none of torch's own threads and would wait for them forever. Its numbers are one,
and a call that was running in the parent does not raise them again. As the child sets both numbers,
it can replace the lock of the keepers, so that `os.fork` need not wait for them.
"""

from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock, RLock
from typing import ParamSpec, TypeVar

import torch

from skae._compat.torch import outside_transforms
from skae.nn.locks import at_fork
from skae.parameters import short_repr

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 10.0
"""Seconds to wait for a keeper, which takes less than a millisecond. It is only waited for in vain
where a signal handler interrupts the wait and forks, or calls an estimator."""

WORK_PER_THREAD = 2**26
"""Number of multiplications in the forward pass of a training step for each torch thread. Steps of
less than twice this number use one thread, and have the same bits whatever the number of threads.
More threads make them slower, above all on a busy machine."""

_keeping = RLock()
"""Held by a keeper, because the number for further threads is wrong during a change. A forked child
has another lock, which calls that began in the parent recognize."""


def _start_in_child() -> None:
    global _keeping
    _keeping = RLock()
    torch.set_num_threads(1)


at_fork(after_in_child=_start_in_child)


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function use one torch thread, also where a signal handler calls it within a trace.

    The matrix products of small networks are too small to be divided among threads. On a busy
    machine, more threads make them slower by orders of magnitude. The function may use more threads
    in `threads_for`.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        lock = _keeping
        with lock:
            count = torch.get_num_threads()
        try:
            try:
                _set_count(1, lock)
                with outside_transforms():
                    return function(*args, **kwargs)
            finally:
                _set_count(count, lock)
        finally:
            # Ctrl-C may have interrupted the line above. Otherwise, this line does nothing.
            _set_count(count, lock)

    return limited


@contextmanager
def threads_for(n_multiplications: int) -> Iterator[None]:
    """Use several torch threads in a `one_thread` function if a training step is large.

    The number of threads grows with `n_multiplications`, that of the forward pass of a step. It is
    at most the number with which Python threads start.
    """
    lock, count = _keeping, n_multiplications // WORK_PER_THREAD
    if count > 1:
        count = min(count, _count_of_new_threads())
    if count < 2:
        yield
        return
    try:
        _set_count(count, lock)
        yield
    finally:
        _set_count(1, lock)


def _count_of_new_threads() -> int:
    """Return the number of torch threads with which Python threads start."""
    found, known = [1], Lock()
    known.acquire()

    def read() -> None:
        with _keeping:
            found.append(torch.get_num_threads())
        known.release()

    start_new_thread(read, ())
    known.acquire(timeout=PATIENCE)
    return found[-1]


def _set_count(count: int, lock: object) -> None:
    """Set the number of torch threads of this Python thread alone.

    `lock` is the one that the caller found when it began. In a child that was forked since then,
    the number is set to one. The number stays as it is if the keeper does not start
    within `PATIENCE` seconds.
    """
    if torch.get_num_threads() == count:
        return
    known, kept, changed = Lock(), Lock(), Lock()
    known.acquire()
    kept.acquire()

    def keep() -> None:
        with _keeping:
            for_further_threads = torch.get_num_threads()
            known.release()
            with changed:
                torch.set_num_threads(for_further_threads)
        kept.release()

    with changed:
        start_new_thread(keep, ())
        if known.acquire(timeout=PATIENCE):
            torch.set_num_threads(count if lock is _keeping else 1)
    kept.acquire(timeout=PATIENCE)


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
    except (RuntimeError, AssertionError, NotImplementedError):
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        names = ["cpu", *gpus, *["mps"] * torch.backends.mps.is_available()]
        raise ValueError(
            f"device={short_repr(device)} is not available. Use 'cuda' for a GPU of NVIDIA or AMD, "
            f"'mps' for one of Apple, or 'auto'. The installed torch finds: {', '.join(names)}."
        ) from None
    return chosen
