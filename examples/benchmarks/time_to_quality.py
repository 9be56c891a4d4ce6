"""Time of the default fit, and the error that it reaches.

There are three tables, each printed with its caption. Seconds are processor time, except those of
`search`.

- `tables`: nine tables, of each at most 6,000 rows. Each split holds out 30 % of the rows. "error
  ratio" is the squared error on these rows divided by that of PCA, as the geometric mean over
  splits. "seconds" is the median time of a fit. The columns are float64, as in data frames. With
  `--base`, the fits of this version and of another checkout of skae run in turns, each in its own
  process.
- `large`: generated tables of 30 columns and up to 1,000,000 rows. "explained variance" is one
  minus the squared error divided by the total variance, on fresh rows.
- `search`: elapsed time of a grid search with 12 candidates and 5 folds in 2 processes.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/time_to_quality.py [--data DIR] [--base FOLDER]
[--splits 3] [--only TABLE] [--rst FOLDER]`. DIR holds more tables as `*.npz` with a key `X`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import show
from capacity import make_rows
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MAX_ROWS = 6000

LEFT_OUT = ("gas",)
"""Names of tables whose mean error has no meaning, because a row is far away from the others."""

SIZES = (10_000, 100_000, 1_000_000)


def load_tables(folder):
    """Yield (name, X, number of components, whether to standardize)."""
    yield "digits", load_digits().data, 8, False
    loaded = [("breast_cancer", load_breast_cancer().data), ("wine", load_wine().data)]
    for path in sorted(Path(folder).glob("*.npz")) if folder else []:
        if path.stem not in LEFT_OUT:
            name = "wine_quality" if path.stem == "wine" else path.stem
            loaded.append((name, np.load(path, allow_pickle=False)["X"].astype(np.float64)))
    for name, X in loaded:
        if len(X) > MAX_ROWS:
            X = X[np.random.default_rng(0).permutation(len(X))[:MAX_ROWS]]
        yield name, X, round(X.shape[1] ** 0.5), True


def make_manifold(n):
    """Make rows of 30 columns around a manifold of 5 dimensions, and 20,000 fresh rows."""
    X = make_rows(0.1, n=n + 20_000, latent=5)
    return X[:n], X[n:]


def squared_error(model, X):
    return float(((model.inverse_transform(model.transform(X)) - X) ** 2).sum())


class Worker:
    """Process that fits autoencoders with one checkout of skae."""

    def __init__(self, checkout):
        command = [sys.executable, __file__, "--worker"]
        environment = os.environ | {"PYTHONPATH": str(Path(checkout).resolve())}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def fit(self, path, k, seed):
        """Return the squared error on held-out rows, and the seconds of the fit."""
        self.process.stdin.write(json.dumps([str(path), k, seed]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def work():
    """Fit what the lines of the standard input describe, and print the results."""
    from skae import Autoencoder

    # The first fit of a process loads modules.
    Autoencoder(2, max_epochs=60, random_state=0).fit(load_digits().data)
    for line in sys.stdin:
        path, k, seed = json.loads(line)
        rows = np.load(path, allow_pickle=False)
        start = time.process_time()
        model = Autoencoder(k, random_state=seed).fit(rows["train"])
        seconds = time.process_time() - start
        print(json.dumps([squared_error(model, rows["test"]), seconds]), flush=True)


def tables(arguments):
    checkouts = [Path(__file__).parents[2], *([arguments.base] if arguments.base else [])]
    yield f"Held-out error and processor seconds of the default fit, {arguments.splits} splits"
    names = ["", " before"][: len(checkouts)]
    yield (
        "set",
        "rows x columns",
        "components",
        *(f"error ratio{name}" for name in names),
        *(f"seconds{name}" for name in names),
    )
    workers, logs, total = [Worker(checkout) for checkout in checkouts], [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, X, k, standardize in load_tables(arguments.data):
            errors, seconds = [], []
            for seed in range(arguments.splits):
                train, test = train_test_split(X, test_size=0.3, random_state=seed)
                if standardize:
                    scaler = StandardScaler().fit(train)
                    train, test = scaler.transform(train), scaler.transform(test)
                path = Path(folder) / "rows.npz"
                np.savez(path, train=train, test=test)
                of_pca = squared_error(PCA(k).fit(train), test)
                found = [worker.fit(path, k, seed) for worker in workers]
                errors.append([np.log(error / of_pca) for error, _ in found])
                seconds.append([s for _, s in found])
            logs.append(np.mean(errors, axis=0))
            total.append(np.median(seconds, axis=0))
            yield (
                name,
                f"{X.shape[0]:,} x {X.shape[1]}",
                str(k),
                *(f"{ratio:.3f}" for ratio in np.exp(logs[-1])),
                *(f"{s:.2f}" for s in total[-1]),
            )
    for worker in workers:
        worker.close()
    yield (
        "all (geometric mean, sum)",
        "-",
        "-",
        *(f"{ratio:.3f}" for ratio in np.exp(np.mean(logs, axis=0))),
        *(f"{s:.2f}" for s in np.sum(total, axis=0)),
    )


def large(arguments):
    from skae import Autoencoder

    yield "30 columns, 5 components: explained variance of fresh rows, processor seconds of a fit"
    yield "rows", "PCA", "autoencoder", "epochs", "seconds", "seconds of PCA"
    Autoencoder(2, max_epochs=60, random_state=0).fit(load_digits().data)
    for n in SIZES:
        X, fresh = make_manifold(n)
        total = ((fresh - X.mean(axis=0)) ** 2).sum()
        results = []
        for model in (PCA(5), Autoencoder(5, random_state=0)):
            start = time.process_time()
            model.fit(X)
            results.append((time.process_time() - start, 1 - squared_error(model, fresh) / total))
        (pca_seconds, by_pca), (seconds, share) = results
        times = f"{seconds:.1f}", f"{pca_seconds:.2f}"
        yield f"{n:,}", f"{by_pca:.3f}", f"{share:.3f}", str(model.n_iter_), *times


def search(arguments):
    from skae import Autoencoder

    yield "breast_cancer, 12 candidates, 5 folds, 2 processes: elapsed seconds"
    yield "estimator", "seconds"
    X, grid = load_breast_cancer().data, range(1, 13)
    for model in (PCA(), Autoencoder(random_state=0)):
        pipeline = make_pipeline(StandardScaler(), model)
        parameters = {f"{type(model).__name__.lower()}__n_components": grid}
        start = time.perf_counter()
        GridSearchCV(pipeline, parameters, cv=5, n_jobs=2).fit(X)
        yield type(model).__name__, f"{time.perf_counter() - start:.1f}"


TABLES = {
    "tables": (tables, ("<27", ">16", ">12", ">13", ">20", ">9", ">16")),
    "large": (large, (">10", ">8", ">13", ">8", ">9", ">16")),
    "search": (search, ("<14", ">9")),
}


def main():
    """Print the tables and write them if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of more tables")
    parser.add_argument("--base", help="another checkout of skae, for the comparison in `tables`")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--rst", metavar="FOLDER", help="where to write the tables for the docs")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    print(describe_machine())
    for name, (table, formats) in TABLES.items():
        if arguments.only in (None, name):
            rst = arguments.rst and Path(arguments.rst) / f"time_{name}_table.rst"
            if name == "tables" and not arguments.base:
                formats = (*formats[:4], formats[5])
            show(table(arguments), formats, "time_to_quality.py", rst)


if __name__ == "__main__":
    main()
