"""Locks around what torch keeps for the whole process."""

import os
import threading
from collections.abc import Callable


def at_fork(**hooks: Callable[[], object]) -> None:
    """Register functions as `os.register_at_fork` takes them; Windows has no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def process_lock() -> threading.Lock:
    """A lock that a forked child may use: no thread of its parent holds it there."""
    lock = threading.Lock()
    at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
