"""The number of torch threads during fits and predictions, and the choice of the device.

torch keeps one number of threads for each Python thread, and one with which further Python threads
start. `torch.set_num_threads` sets both. A fit or a prediction lowers the number of its own thread
alone: a short-lived thread reads the number for further threads before each change and restores it
afterwards. Calls in several threads therefore share no state, and each one restores the number of
its own thread when it ends. Signal handlers run in the main thread only, so Ctrl-C cannot interrupt
the short-lived thread.

A forked child has none of torch's own threads and would wait for them forever. Its numbers are one,
and a call that was running in the parent does not raise them again.
"""

import os
from _thread import start_new_thread
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

import torch

from skae.nn.locks import at_fork, process_lock

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 10.0
"""Seconds to wait for the short-lived thread, which takes less than a millisecond. In a child that
a signal handler forks meanwhile, the thread does not exist."""

_counts = process_lock()
"""Needed because another thread would read the number for further threads while it is changed."""

at_fork(after_in_child=lambda: torch.set_num_threads(1))


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function use one torch thread.

    The matrix products of small networks are too small to be divided among threads. On a busy
    machine, more threads make them slower by orders of magnitude.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _counts:
            count, process = torch.get_num_threads(), os.getpid()
        try:
            try:
                _set_count(1, process)
                return function(*args, **kwargs)
            finally:
                _set_count(count, process)
        finally:
            # Ctrl-C may have interrupted the line above. Otherwise this does nothing.
            _set_count(count, process)

    return limited


def _set_count(count: int, process: int) -> None:
    """Set the number of torch threads of this Python thread alone, unless the process is another.

    The number stays as it is if no other thread can start within `PATIENCE` seconds.
    """
    with _counts:
        if torch.get_num_threads() == count:
            return
        known, kept, changed = Lock(), Lock(), Lock()
        known.acquire()
        kept.acquire()

        def keep() -> None:
            count_of_further_threads = torch.get_num_threads()
            known.release()
            with changed:
                torch.set_num_threads(count_of_further_threads)
            kept.release()

        try:
            with changed:
                start_new_thread(keep, ())
                if known.acquire(timeout=PATIENCE) and os.getpid() == process:
                    torch.set_num_threads(count)
        finally:
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
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={device!r} is not available: {error}") from None
    return chosen
