"""Errors of `partial_fit` on streams, compared with IncrementalPCA and with `fit` on all rows.

    python examples/benchmarks/streaming.py [--data DIR] [--sizes 1 20 1000] [--rst FILE]

The first table has 20,000 rows of 10 columns: a tanh manifold of 3 dimensions with noise of .1
(seed 0), shuffled and sorted by its first column. With ``--data``, 6,000 standardized rows at most
of two tables of that folder, `concrete.npz` and `elevators.npz`, follow, sorted by their first
column. Each stream is passed five times, in calls of 1, 20 and 1,000 rows. IncrementalPCA receives
the same rows once, at least max(20, k) in each call. Errors are mean squared errors per row, on the
rows of the stream. `fit` has its default parameters.

"after fit" is the change of the error of held-out rows when `partial_fit` receives 200 of the rows
of a `fit`, in calls of the size in the second column. "time" is the ratio of the median time of the
last 50 calls to that of the first 50 calls after the sample of earlier rows was full, and "pickle"
is the ratio of the sizes of pickles. They are given if there were at least 100 such calls.
"""

import argparse
import copy
import pickle
import time
import warnings
from pathlib import Path

import numpy as np
from _table import show
from sklearn.decomposition import IncrementalPCA
from sklearn.model_selection import train_test_split

from skae import Autoencoder
from skae.table.seen import SAMPLE_ROWS

TABLES = ("concrete", "elevators")
PASSES = 5
FORMATS = ["<12", ">6", ">10", ">10", ">10", ">10", ">8", ">11", ">10", ">9", ">9"]


def manifold():
    rng = np.random.default_rng(0)
    codes = np.tanh(rng.normal(size=(20_000, 3)) @ rng.normal(size=(3, 10)))
    return codes @ rng.normal(size=(10, 10)) + 0.1 * rng.normal(size=(20_000, 10))


def streams(folder):
    """Yield the name, the rows in the order of the stream, and the number of components."""
    rows = manifold()
    yield "sorted", rows[rows[:, 0].argsort(kind="stable")], 3
    yield "shuffled", rows, 3
    for name in TABLES if folder else ():
        with np.load(Path(folder) / f"{name}.npz") as file:
            rows = file["X"][:6000].astype(float)
        rows = (rows - rows.mean(axis=0)) / np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1)
        yield name, rows[rows[:, 0].argsort(kind="stable")], round(rows.shape[1] ** 0.5)


def error(model, rows):
    return ((rows - model.inverse_transform(model.transform(rows))) ** 2).sum(axis=1).mean()


def parts(rows, size):
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def incremental_pca(rows, k, size):
    model = IncrementalPCA(k)
    for part in parts(rows, max(size, 20, k)):
        if len(part) >= k:
            model.partial_fit(part)
    return error(model, rows)


def streamed(rows, k, size):
    """Return errors after one and after five passes, seconds per pass, and ratios of the last call.

    The ratios are those of its time and of its pickle to the first one after the sample was full.
    """
    model, errors, seconds, bytes_ = Autoencoder(k, random_state=0), [], [], []
    n_full = SAMPLE_ROWS // size + 1
    for i in range(PASSES):
        for part in parts(rows, size):
            start = time.perf_counter()
            model.partial_fit(part)
            seconds.append(time.perf_counter() - start)
            if len(seconds) == n_full:
                bytes_.append(len(pickle.dumps(model)))
        if i in (0, PASSES - 1):
            errors.append(error(model, rows))
    bytes_.append(len(pickle.dumps(model)))
    slower = larger = np.nan
    if len(seconds) >= n_full + 100:
        slower = np.median(seconds[-50:]) / np.median(seconds[n_full : n_full + 50])
        larger = bytes_[-1] / bytes_[0]
    return *errors, sum(seconds) / PASSES, slower, larger


def change_after_fit(rows, k, size):
    train, test = train_test_split(rows, test_size=0.3, random_state=0)
    model = Autoencoder(k, random_state=0).fit(train)
    before, model = error(model, test), copy.deepcopy(model)
    for part in parts(train[:200], size):
        model.partial_fit(part)
    return error(model, test) / before - 1


def table(folder, sizes):
    yield "Errors of streams, in calls of several sizes"
    yield ["stream", "call", "Incr. PCA", "1 pass", "5 passes", "fit", "ratio", "after fit",
           "s / pass", "time", "pickle"]  # fmt: skip
    for name, rows, k in streams(folder):
        whole = error(Autoencoder(k, random_state=0).fit(rows), rows)
        for size in sizes:
            one, five, seconds, *ratios = streamed(rows, k, size)
            change = change_after_fit(rows, k, size)
            yield [name, f"{size:,}", f"{incremental_pca(rows, k, size):.3f}", f"{one:.3f}",
                   f"{five:.3f}", f"{whole:.3f}", f"{five / whole:.2f}", f"{100 * change:+.1f} %",
                   f"{seconds:.1f}",
                   *("" if np.isnan(r) else f"{r:.2f}" for r in ratios)]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with concrete.npz and elevators.npz")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 20, 1000])
    parser.add_argument("--rst", help="file for the table")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    show(table(arguments.data, arguments.sizes), FORMATS, "streaming.py", arguments.rst)


if __name__ == "__main__":
    main()
