"""Locks around what torch keeps for the whole process."""

import os
import threading


def process_lock() -> threading.Lock:
    """A lock that a forked child may use: no thread of its parent holds it there."""
    lock = threading.Lock()
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )
    return lock
