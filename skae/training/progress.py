"""What a running fit shows: lines without colors in files, and a warning if it takes long."""

import re
import sys
from time import perf_counter

from skae._compat.sklearn import warn

LONG = 60.0
"""Seconds that a training must be expected to take, so that it warns."""

MEASURED = 1.0
"""Seconds after which the time of the training is estimated from that of its first steps."""

COLORS = re.compile("\033\\[[0-9]+m")


def print_plain(line: str) -> None:
    """Print a line, without its colors unless the output is a terminal."""
    print(line if sys.stdout.isatty() else COLORS.sub("", line))


class LongTraining:
    """Warns once, soon after the start of a training, if it is expected to take long.

    Parameters
    ----------
    done : int
        Number of steps that were completed before the start, in a training that resumes.
    """

    def __init__(self, done: int) -> None:
        self._start, self._done, self._is_open = perf_counter(), done, True

    def check(self, done: int, n_steps: int) -> None:
        """Estimate the total time after `done` of `n_steps` steps, if it has not been estimated."""
        seconds = perf_counter() - self._start
        if not self._is_open or seconds < MEASURED or done <= self._done:
            return
        self._is_open = False
        left = seconds * (n_steps - done) / (done - self._done)
        if left > LONG:
            warn(
                f"This fit is expected to take {_duration(left)} for {n_steps - done:,} more "
                "training steps. Lower max_epochs or use narrower hidden_layer_sizes for a "
                "shorter fit. Set verbose=1 to follow its progress, which also turns off this "
                "warning.",
                UserWarning,
            )


def _duration(seconds: float) -> str:
    """Describe a duration in minutes or hours."""
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours >= 2 else f"about {seconds / 60:.0f} minutes"
