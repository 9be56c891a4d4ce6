"""Speed of `transform` and `score_samples`, compared with PCA and with the bare network.

    python examples/benchmarks/inference.py [--rst FILE]

All calls run in this process, in turns and on one thread, on float32 rows. Times are medians over
3 to 2,000 rounds. The bare network is the fitted encoder, called on chunks of 2,048 rows of a valid
array. `transform` also validates its input and checks that its result is finite. `score_samples`
has no such network. For deterministic codes, the table compares it with the same search for the
most probable codes in which the decoder is differentiated in forward mode instead of closed form.
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

from skae import Autoencoder, VariationalAutoencoder
from skae.nn.batch import Batch
from skae.nn.bodies.layers import Chain, Residual

CASES = [
    (Autoencoder, "transform", 1_000_000, 30, 8, 7),
    (Autoencoder, "transform", 60_000, 784, 32, 7),
    (Autoencoder, "transform", 1, 30, 8, 2000),
    (Autoencoder, "transform", 1, 784, 32, 2000),
    (Autoencoder, "score_samples", 100_000, 30, 5, 3),
    (Autoencoder, "score_samples", 10_000, 784, 16, 3),
    (Autoencoder, "score_samples", 1, 30, 5, 200),
    (VariationalAutoencoder, "score_samples", 10_000, 30, 5, 3),
]
"""Model, method, and numbers of rows, columns, components and rounds."""


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(rounds, **calls):
    """Run calls in turns, and return the median seconds of each by its name."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def run_network(module, X):
    """Run the encoder on chunks of rows."""
    with torch.inference_mode():
        parts = [torch.from_numpy(X[i : i + 2048]) for i in range(0, len(X), 2048)]
        batches = [Batch(x, x.new_ones(len(x))) for x in parts]
        return torch.cat([module.encode(batch).mean for batch in batches]).numpy()


def run_forward_mode(call):
    """Call `score_samples` with derivatives of the decoder in forward mode."""
    closed_form, Chain.linearize = Chain.linearize, Residual.linearize
    try:
        return call()
    finally:
        Chain.linearize = closed_form


def make_rows(n, d, rng):
    """Return rows near a curved surface of five dimensions."""
    weights = rng.normal(size=(5, d))
    return np.concatenate(
        [
            np.tanh(rng.normal(size=(m, 5)) @ weights) + 0.1 * rng.normal(size=(m, d))
            for m in [10_000] * (n // 10_000)
        ]
    ).astype(np.float32)


def compare():
    """Yield the caption, the header, and one row per case."""
    yield (
        "Median time of a call in microseconds, and its ratios to the time of PCA, of the network, "
        "of the network and the validation together, and of derivatives in forward mode"
    )
    header = "PCA", "network", "network and validation", "forward mode"
    yield "model", "method", "rows x columns", "components", "microseconds", *header
    rng = np.random.default_rng(0)
    for make, method, n, d, k, rounds in CASES:
        X = make_rows(max(n, 10_000), d, rng)
        model = make(k, max_epochs=5, random_state=0).fit(X[:5000])
        pca = PCA(k).fit(X[:5000])
        X = X[:n]
        calls = {
            "skae": partial(getattr(model, method), X),
            "pca": partial(getattr(pca, method), X),
        }
        if method == "transform":
            calls["network"] = partial(run_network, model.module_, X)
            calls["validation"] = partial(
                validate_data, model, X, dtype=[np.float64, np.float32], reset=False
            )
        elif make is Autoencoder:
            calls["forward mode"] = partial(run_forward_mode, calls["skae"])
        times = medians(rounds, **calls)
        skae = times["skae"]
        ratios = [f"{skae / times['pca']:.2f}", "-", "-", "-"]
        if method == "transform":
            network, validation = times["network"], times["validation"]
            ratios[1:3] = f"{skae / network:.2f}", f"{skae / (network + validation):.2f}"
        if "forward mode" in times:
            ratios[3] = f"{skae / times['forward mode']:.2f}"
        yield make.__name__, method, f"{n:,} x {d}", str(k), f"{1e6 * skae:,.0f}", *ratios


def main():
    """Print the table and write it if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    print(describe_machine())
    torch.set_num_threads(1)
    formats = ("<23", "<14", ">17", ">12", ">14", ">8", ">9", ">24", ">14")
    show(compare(), formats, "inference.py", arguments.rst)


if __name__ == "__main__":
    main()
