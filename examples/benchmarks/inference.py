"""Speed of `transform` and `score_samples` next to PCA's, and to the bare network's.

    python examples/benchmarks/inference.py [--rst FILE]

All in this process, in turns, float32, one thread; medians of several rounds. The bare network is
the fitted encoder called on chunks of 2,048 rows of an array that is known to be good: what
`transform` adds is validation, conversion and collecting the results. `score_samples` has no bare
network; its rows say how many times PCA's time it takes.
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np
import torch
from _machine import describe_machine
from _table import show
from sklearn.decomposition import PCA
from sklearn.utils.validation import validate_data

from skae import Autoencoder
from skae.nn.batch import Batch

CASES = [
    ("transform", 1_000_000, 30, 8, 7),
    ("transform", 60_000, 784, 32, 7),
    ("transform", 1, 30, 8, 2000),
    ("transform", 1, 784, 32, 2000),
    ("score_samples", 100_000, 30, 5, 3),
    ("score_samples", 10_000, 784, 16, 3),
    ("score_samples", 1, 30, 5, 200),
]
"""Method, rows, columns, components, rounds."""


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(rounds, **calls):
    """Median seconds of calls that take turns."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def bare(module, X):
    """The encoder on chunks of rows."""
    with torch.inference_mode():
        parts = [torch.from_numpy(X[i : i + 2048]) for i in range(0, len(X), 2048)]
        batches = [Batch(x, x.new_ones(len(x))) for x in parts]
        return torch.cat([module.encode(batch).mean for batch in batches]).numpy()


def curved(n, d, rng):
    """Rows near a curved surface of five dimensions."""
    bend = rng.normal(size=(5, d))
    return np.concatenate(
        [
            np.tanh(rng.normal(size=(m, 5)) @ bend) + 0.1 * rng.normal(size=(m, d))
            for m in [10_000] * (n // 10_000)
        ]
    ).astype(np.float32)


def compare():
    """The table: caption, header, and a row per case."""
    yield "Medians; as a multiple of what others take"
    header = "of PCA's", "of the network's", "of network and validation"
    yield "method", "rows x columns", "code", "microseconds", *header
    rng = np.random.default_rng(0)
    for method, n, d, k, rounds in CASES:
        X = curved(max(n, 10_000), d, rng)
        model = Autoencoder(k, max_epochs=5, random_state=0).fit(X[:5000])
        pca = PCA(k).fit(X[:5000])
        X = X[:n]
        calls = {
            "skae": partial(getattr(model, method), X),
            "pca": partial(getattr(pca, method), X),
        }
        if method == "transform":
            calls["network"] = partial(bare, model.module_, X)
            calls["check"] = partial(
                validate_data, model, X, dtype=[np.float64, np.float32], reset=False
            )
        times = medians(rounds, **calls)
        skae = times["skae"]
        ratios = [f"{skae / times['pca']:.2f}", "-", "-"]
        if method == "transform":
            network, check = times["network"], times["check"]
            ratios[1:] = f"{skae / network:.2f}", f"{skae / (network + check):.2f}"
        yield method, f"{n:,} x {d}", str(k), f"{1e6 * skae:,.0f}", *ratios


def main():
    """Print the table and, if asked to, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    print(describe_machine())
    torch.set_num_threads(1)
    formats = ("<14", ">17", ">6", ">14", ">10", ">18", ">27")
    show(compare(), formats, "inference.py", arguments.rst)


if __name__ == "__main__":
    main()
