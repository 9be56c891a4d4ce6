"""What a running fit shows: lines without colors in files, and a warning if it takes long."""

import math
import re
import sys
from time import perf_counter

from skae._compat.sklearn import warn

LONG = 60.0
"""Seconds that a training must be expected to take, so that it warns."""

MEASURED = 1.0
MEASURED_STEPS = 3
"""Smallest time in seconds, and smallest number of steps, from which the time is estimated."""

COLORS = re.compile("\033\\[[0-9]+m")


def print_plain(line: str) -> None:
    """Print a line, without its colors unless the output is a terminal."""
    print(line if sys.stdout.isatty() else COLORS.sub("", line))


class LongTraining:
    """Warns once, soon after the start of a training, if it is expected to take long."""

    def __init__(self) -> None:
        self._is_estimated = False
        self.begin()

    def begin(self, is_shown: bool = False) -> None:
        """Announce that the first step follows. No warning follows if the progress is shown."""
        self._is_estimated |= is_shown
        self._start = self._last = perf_counter()
        self._n_steps = 0
        # Some steps take much longer than others, because they are traced.
        self._shortest = math.inf

    def check(self, n_left: int) -> None:
        """Estimate the remaining time, after a step that is followed by `n_left` more steps."""
        if self._is_estimated:
            return
        now = perf_counter()
        self._n_steps += 1
        self._shortest, self._last = min(self._shortest, now - self._last), now
        if now - self._start < MEASURED or self._n_steps < MEASURED_STEPS:
            return
        self._is_estimated = True
        left = n_left * self._shortest
        if left > LONG:
            warn(
                f"This fit is expected to take {_duration(left)} for {n_left:,} more training "
                "steps. Lower max_epochs or use narrower hidden_layer_sizes for a shorter fit. Set "
                "verbose=1 to follow its progress, which also turns off this warning.",
                UserWarning,
            )


def _duration(seconds: float) -> str:
    """Describe a duration in minutes or hours."""
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours >= 2 else f"about {seconds / 60:.0f} minutes"
