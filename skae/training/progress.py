"""What a running fit shows: lines without colors in files, and a warning if it takes long."""

import re
import sys
from time import perf_counter

from skae._compat.sklearn import warn

LONG = 60.0
"""Seconds that a training must be expected to take, so that it warns."""

FIRST_STEPS = 3
MEASURED = 1.0
"""Number of first steps that are left out, because they include tracing, and seconds of further
steps from which the remaining time is estimated."""

COLORS = re.compile("\033\\[[0-9]+m")


def print_plain(line: str) -> None:
    """Print a line, without its colors unless the output is a terminal."""
    print(line if sys.stdout.isatty() else COLORS.sub("", line))


class LongTraining:
    """Warns once, soon after the start of a training, if it is expected to take long."""

    def __init__(self) -> None:
        self._is_estimated, self._n_first, self._start = False, 0, 0.0

    def begin(self, done: int) -> None:
        """Announce that training begins when `done` steps are completed."""
        self._n_first = done + FIRST_STEPS

    def check(self, done: int, n_steps: int) -> None:
        """Estimate the remaining time after `done` of `n_steps` steps, if it is unknown."""
        if done <= self._n_first:
            self._start = perf_counter()
            return
        seconds = perf_counter() - self._start
        if self._is_estimated or seconds < MEASURED:
            return
        self._is_estimated = True
        left = seconds * (n_steps - done) / (done - self._n_first)
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
