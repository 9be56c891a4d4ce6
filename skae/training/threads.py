"""How many torch threads a process may use, and on which device it computes."""

import threading
from contextlib import AbstractContextManager
from typing import Self

import torch

from skae.nn.locks import at_fork


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

    def __exit__(self, *error: object) -> None:
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
