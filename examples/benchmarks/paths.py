"""Numbers of components that paths suggest, and the time of paths.

Manifolds: a random tanh layer maps 3, 6 or 10 normal causes to 30 columns, with noise of .03, .1 or
.3; 2,000 rows; sizes from 1 to 13. The right size is the number of causes. The cost of a path is
its time as a multiple of the time of a fit with the largest size on all rows, which is measured
before and after it in the same process.
Tables: digits, breast cancer and those of `--data`, with the default sizes.

Run `python examples/benchmarks/paths.py [--data DIR] [--rst docs]`. DIR holds more tables as
`*.npz` with a key `X`.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import show
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skae import Autoencoder, components_path

SIZES = range(1, 14)
ROWS = 2000
MOST_ROWS = 5000


def manifold(causes, noise, seed):
    """Return rows of 30 columns, nonlinear functions of normal causes."""
    rng = np.random.default_rng(seed)
    X = np.tanh(rng.normal(size=(ROWS, causes)) @ rng.normal(size=(causes, 30)))
    return X + noise * rng.normal(size=X.shape)


def seconds(function):
    """Call a function, and return its result and its seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def path_and_cost(X, estimator, largest, **options):
    """Return a path, and its time as a multiple of the time of its largest fit."""
    before = seconds(lambda: largest.fit(X))[1]
    path, elapsed = seconds(lambda: components_path(estimator, X, **options))
    after = seconds(lambda: largest.fit(X))[1]
    return path, elapsed / ((before + after) / 2)


def report_manifolds(n_seeds):
    """Yield the caption, the header, and a row for each manifold, over all seeds."""
    yield "Generated data: suggested numbers of components by seed, and relative time of the path"
    yield ["latent variables", "noise", "suggested", "one standard error", "path / largest fit"]
    for causes in (3, 6, 10):
        for noise in (0.03, 0.1, 0.3):
            found, simpler, costs = [], [], []
            for seed in range(n_seeds):
                estimator = Autoencoder(random_state=seed)
                largest = Autoencoder(max(SIZES), random_state=seed)
                X = manifold(causes, noise, seed)
                path, cost = path_and_cost(X, estimator, largest, param_range=SIZES)
                found.append(path.suggested)
                simpler.append(path.one_standard_error())
                costs.append(cost)
            texts = [" ".join(map(str, sizes)) for sizes in (found, simpler)]
            yield [str(causes), f"{noise:g}", *texts, f"{np.median(costs):.2f}"]


def load_tables(folder):
    """Yield the name, the rows and the scaler of each table."""
    yield "digits", load_digits().data, FunctionTransformer(lambda X: X / 16)
    yield "breast cancer", load_breast_cancer().data, StandardScaler()
    for path in sorted(Path(folder).glob("*.npz")) if folder else []:
        X = np.load(path, allow_pickle=False)["X"].astype(float)
        rows = np.random.default_rng(0).permutation(len(X))[:MOST_ROWS]
        yield path.stem, X[rows], StandardScaler()


def report_tables(folder):
    """Yield the caption, the header, and a row for each table, next to PCA."""
    yield f"Real data, at most {MOST_ROWS:,} rows of a table: suggested numbers of components, PCA"
    yield [
        "table", "rows x columns", "suggested", "nats", "nats of PCA", "best nats of PCA (size)",
        "error ratio", "path / largest fit",
    ]  # fmt: skip
    for name, X, scaler in load_tables(folder):
        estimator = make_pipeline(scaler, Autoencoder(random_state=0))
        largest_size = min(X.shape[1], round(3 * X.shape[1] ** 0.5))
        largest = make_pipeline(scaler, Autoencoder(largest_size, random_state=0))
        path, cost = path_and_cost(X, estimator, largest)
        best = path.results.loc[path.suggested]
        pca = path.results["pca_test_nats"]
        yield [
            name, f"{X.shape[0]:,} x {X.shape[1]}", str(path.suggested), f"{best['test_nats']:.2f}",
            f"{best['pca_test_nats']:.2f}", f"{pca.max():.2f} ({pca.idxmax()})",
            f"{best['test_error'] / best['pca_test_error']:.2f}", f"{cost:.2f}",
        ]  # fmt: skip


def main():
    """Print both tables and write them if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of further tables")
    parser.add_argument("--rst", help="folder to write the documentation's tables to")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["manifolds", "tables"])
    arguments = parser.parse_args()
    # skae warns if the largest size is suggested. The table shows this anyway.
    warnings.filterwarnings("ignore", message="The suggested n_components")
    print(describe_machine())
    parts = {
        "manifolds": (report_manifolds(arguments.seeds), ["<18", "<8", "<22", "<22", ">20"]),
        "tables": (
            report_tables(arguments.data),
            ["<14", ">15", ">11", ">9", ">13", ">25", ">13", ">20"],
        ),
    }
    for name, (table, formats) in parts.items():
        if arguments.only in (None, name):
            rst = Path(arguments.rst) / f"path_{name}_table.rst" if arguments.rst else None
            show(table, formats, "paths.py", rst)


if __name__ == "__main__":
    main()
