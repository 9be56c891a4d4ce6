"""Time of a training step on one and on two torch threads, for networks of several sizes.

    python examples/benchmarks/threads.py [--rst FILE]

"multiplications" is their number in the forward pass of a step, in millions. `WORK_PER_THREAD` in
`skae/training/threads.py` determines the number of threads from it, which "threads" shows for two
cores. For the columns "1 thread" and "2 threads", this rule is turned off. Times are those of an
epoch divided by its number of steps, in milliseconds, as the median of three rounds in turns.
"difference" is the largest difference between the codes of the two networks, relative to the
largest code. The table needs an idle machine.
"""

import argparse
import statistics
import warnings

import numpy as np
import torch
from _table import show

from skae import Autoencoder
from skae.training import threads

CASES = {
    "S": (1_800, 64, (64, 32), 8, 64),
    "M": (25_600, 30, (64, 32), 8, 256),
    "default, 30 columns": (25_600, 30, "auto", 5, 256),
    "default, 784 columns": (5_120, 784, "auto", 16, 256),
    "L": (5_120, 784, (512, 256), 32, 256),
    "784-1000-500-250-30": (5_120, 784, (1000, 500, 250), 30, 256),
}
"""Numbers of rows and columns, widths of the hidden layers, size of the code and of a batch."""

ROUNDS = 3
FORMATS = ["<21", ">15", ">9", ">10", ">6", ">8", ">11"]


def fitted(case, n_threads):
    """Return the time of a step in milliseconds, a fitted model and its rows."""
    n, d, widths, k, size = case
    X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    torch.set_num_threads(n_threads)
    threads.WORK_PER_THREAD = 1
    model = Autoencoder(k, hidden_layer_sizes=widths, batch_size=size, max_epochs=1,
                        early_stopping=False, random_state=0)  # fmt: skip
    model.fit(X)
    n_steps = -(-n // size)
    return 1e3 * model.history_[-1, "dur"] / n_steps, model, X


def table():
    yield "Time of a training step in milliseconds, on one and on two torch threads"
    yield ["network", "multiplications", "1 thread", "2 threads", "ratio", "threads", "difference"]
    rule = threads.WORK_PER_THREAD
    for name, case in CASES.items():
        times, codes = {1: [], 2: []}, {}
        for _ in range(ROUNDS):
            for count in (1, 2):
                milliseconds, model, X = fitted(case, count)
                times[count].append(milliseconds)
                codes[count] = model.transform(X)
        n_weights = sum(p.numel() for p in model._fitted.network.parameters())
        work, (one, two) = case[-1] * n_weights, map(statistics.median, times.values())
        difference = np.abs(codes[1] - codes[2]).max() / np.abs(codes[1]).max()
        yield [name, f"{work / 1e6:.1f}", f"{one:.2f}", f"{two:.2f}", f"{one / two:.2f}",
               str(max(1, min(2, work // rule))), f"{difference:.0e}"]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rst", help="file for the table")
    warnings.simplefilter("ignore")
    show(table(), FORMATS, "threads.py", parser.parse_args().rst)


if __name__ == "__main__":
    main()
