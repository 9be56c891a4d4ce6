"""The lock of torch's process-wide state, and what a forked child does with it.

torch keeps some state per process, for example the methods of `nn.Module` while fx traces. A thread
that changes such state holds a lock of `process_lock` until the state is as before. `os.fork` waits
for the lock, so that a child never starts with state that another thread has half changed.

The lock is reentrant. A signal handler may therefore fork, or call an estimator, while its own
thread holds the lock. The child continues the handler in a copy of this thread, which finishes the
change and releases the lock as in the parent.
"""

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def at_fork(**hooks: Callable[[], object]) -> None:
    """Register functions with `os.register_at_fork`, which Windows does not have."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def process_lock() -> threading.RLock:
    """Return a reentrant lock that no other thread holds when the process is forked."""
    lock = threading.RLock()
    at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


class cached_property(Generic[T]):
    """A property that is computed when it is first read.

    That of functools has a lock for each property of a class before Python 3.12, which stays locked
    in a child that is forked while another thread computes the property.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function

    def __get__(self, owner: object, kind: type) -> T:
        value = vars(owner)[self.function.__name__] = self.function(owner)
        return value
