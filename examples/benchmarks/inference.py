"""Speed of `transform` next to its bare network, and seconds of `score_samples`.

    python examples/benchmarks/inference.py

All in this process, in turns, float32, one thread; medians of several rounds. The bare network is
the fitted encoder called on chunks of 2,048 rows of an array that is known to be good: what
`transform` adds is validation, conversion and collecting the results.
"""

import statistics
import time
from functools import partial

import numpy as np
import torch
from _machine import describe_machine
from sklearn.utils.validation import validate_data

from skae import Autoencoder

TABLES = [("1,000,000 x 30 -> 8", 1_000_000, 30, 8), ("60,000 x 784 -> 32", 60_000, 784, 32)]
DENSITIES = [("100,000 x 30, k=5", 100_000, 30, 5), ("10,000 x 784, k=16", 10_000, 784, 16)]


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
        chunks = [
            module.encode(torch.from_numpy(X[i : i + 2048])).mean for i in range(0, len(X), 2048)
        ]
        return torch.cat(chunks).numpy()


def time_transform(model, X, rounds):
    """Median seconds of `transform`, of its network and of its validation."""
    check = partial(validate_data, model, X, dtype=[np.float64, np.float32], reset=False)
    return medians(
        rounds,
        skae=partial(model.transform, X),
        bare=partial(bare, model.module_, X),
        check=check,
    )


def curved(n, d, rng):
    """Rows near a curved surface of five dimensions."""
    bend = rng.normal(size=(5, d))
    return np.concatenate(
        [
            np.tanh(rng.normal(size=(m, 5)) @ bend) + 0.1 * rng.normal(size=(m, d))
            for m in [10_000] * (n // 10_000)
        ]
    ).astype(np.float32)


def main():
    print(describe_machine())
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    print(f"\n{'transform':24}{'skae s':>9}{'bare s':>9}{'speed':>8}   one row: skae us, bare us,")
    print(f"{'':50}   validate_data us, ratio")
    for name, n, d, k in TABLES:
        X = curved(n, d, rng)
        model = Autoencoder(k, max_epochs=1, random_state=0).fit(X[:5000])
        table = time_transform(model, X, 7)
        one = time_transform(model, X[:1], 2000)
        ratio = one["skae"] / (one["bare"] + one["check"])
        print(
            f"{name:24}{table['skae']:9.2f}{table['bare']:9.2f}{table['bare'] / table['skae']:8.2f}"
            f"   {1e6 * one['skae']:.0f}, {1e6 * one['bare']:.0f}, {1e6 * one['check']:.0f}, "
            f"{ratio:.2f}",
            flush=True,
        )

    print(f"\n{'score_samples':24}{'seconds':>9}")
    for name, n, d, k in DENSITIES:
        X = curved(n, d, rng)
        model = Autoencoder(k, max_epochs=5, random_state=0).fit(X[:5000])
        print(f"{name:24}{seconds(partial(model.score_samples, X)):9.2f}", flush=True)


if __name__ == "__main__":
    main()
