"""Locks for global state of torch that stay usable after a fork."""

import os
import threading
from collections.abc import Callable


def at_fork(**hooks: Callable[[], object]) -> None:
    """Register functions with `os.register_at_fork`, which Windows does not have."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def process_lock() -> threading.Lock:
    """Return a lock that a forked child can use: no thread of the parent holds it there."""
    lock = threading.Lock()
    at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
