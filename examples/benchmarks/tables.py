"""The default autoencoder compared with PCA on small tables, and settings that speed up its fit.

There are three tables, each printed with its caption. Seconds are processor time. On one thread,
they are about the elapsed time on an idle machine.

- `tables`: the default autoencoder and PCA for each data set and number of components. Each split
  holds out 30 % of the rows, the same for both models. "error ratio" is the squared error divided
  by that of PCA, as the mean over splits. "worst" is the largest difference from the error of PCA
  on one split, in standard errors that are computed from the differences of single rows. "nats
  above PCA" is the log-density per row minus that under PCA, as the mean over splits. "seconds" is
  the median time of a fit, and "time ratio" divides it by that of PCA.
- `settings`: the default fit of digits and other fits, which run in turns. The error and the
  log-density are compared with those of PCA as in `tables`, the time with that of the default fit.
- `search`: the number of components for 2,000 rows with 6 latent variables (those of capacity.py),
  selected by a grid search and by a path. Both hold out a quarter of the rows. Their time is
  compared with that of one fit to all rows.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/tables.py [--data DIR] [--splits 5] [--only TABLE]
[--sets NAME ...] [--rst FOLDER]`. DIR holds more tables as `*.npz` with a key `X`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import show
from capacity import make_rows
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, ShuffleSplit, train_test_split
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, components_path

SETTINGS = {
    "defaults": {},
    "hidden_layer_sizes=(256, 128)": {"hidden_layer_sizes": (256, 128)},
    "hidden_layer_sizes=(64, 32)": {"hidden_layer_sizes": (64, 32)},
    'precision="float64"': {"precision": "float64"},
    "batch_size=256": {"batch_size": 256},
    "max_epochs=100": {"max_epochs": 100},
    "max_epochs=30": {"max_epochs": 30},
    "batch_size=256, max_epochs=30": {"batch_size": 256, "max_epochs": 30},
}

SIZES = (2, 3, 4, 5, 6, 8, 10, 12)


def load_tables(folder):
    """Yield (name, X, numbers of components, whether to standardize)."""
    yield "digits", load_digits().data, (2, 4, 8, 16), False
    yield "breast_cancer", load_breast_cancer().data, (2, 5, 8), True
    for load in (load_wine, load_diabetes, load_iris):
        X = load().data
        yield load.__name__.removeprefix("load_"), X, (round(X.shape[1] ** 0.5),), True
    for path in sorted(Path(folder).glob("*.npz")) if folder else []:
        X = np.load(path, allow_pickle=False)["X"].astype(float)
        yield path.stem, X, (round(X.shape[1] ** 0.5),), True


def timed(call):
    """Return the result of a call and its seconds of processor time."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def compare(X, k, standardize, seed, settings):
    """Return held-out rows, and fitted models with the seconds of their fits.

    The models are PCA and an autoencoder for each of the settings.
    """
    train, test = train_test_split(X, test_size=0.3, random_state=seed)
    if standardize:
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
    models = [PCA(k), *(Autoencoder(k, random_state=seed, **p) for p in settings)]
    return test, [timed(lambda model=model: model.fit(train)) for model in models]


def row_errors(model, X):
    return ((model.inverse_transform(model.transform(X)) - X) ** 2).sum(axis=1)


def tables(arguments):
    yield f"Held-out rows: means over {arguments.splits} splits, median seconds"
    yield (
        "set",
        "rows x columns",
        "components",
        "error ratio",
        "worst",
        "nats above PCA",
        "seconds",
        "time ratio",
    )
    for name, X, sizes, standardize in load_tables(arguments.data):
        if arguments.sets and name not in arguments.sets:
            continue
        for k in sizes:
            figures = []
            for seed in range(arguments.splits):
                test, fits = compare(X, k, standardize, seed, [{}])
                (pca, pca_seconds), (model, seconds) = fits
                pca_errors, errors = row_errors(pca, test), row_errors(model, test)
                excess = errors - pca_errors
                figures.append(
                    (
                        errors.mean() / pca_errors.mean(),
                        excess.mean() / (excess.std() / len(excess) ** 0.5),
                        model.score(test) - pca.score(test),
                        seconds,
                        pca_seconds,
                    )
                )
            ratios, excesses, nats, seconds, pca_seconds = np.transpose(figures)
            yield (
                name,
                f"{X.shape[0]:,} x {X.shape[1]}",
                str(k),
                f"{ratios.mean():.3f}",
                f"{excesses.max():.1f}",
                f"{nats.mean():.2f}",
                f"{np.median(seconds):.2f}",
                f"{np.median(seconds) / np.median(pca_seconds):,.0f}",
            )


def settings(arguments):
    yield f"Digits, 8 components: means over {arguments.splits} splits, median seconds"
    yield "setting", "epochs", "seconds", "time ratio", "error ratio", "nats above PCA"
    figures = []
    for seed in range(arguments.splits):
        test, fits = compare(load_digits().data, 8, False, seed, SETTINGS.values())
        (pca, _), *fits = fits
        error, nats = row_errors(pca, test).mean(), pca.score(test)
        figures.append(
            [
                (m.n_iter_, seconds, row_errors(m, test).mean() / error, m.score(test) - nats)
                for m, seconds in fits
            ]
        )
    seconds = np.median(figures, axis=0)[:, 1]
    for name, (epochs, _, ratio, nats), median in zip(
        SETTINGS, np.mean(figures, axis=0), seconds, strict=True
    ):
        times = f"{median:.2f}", f"{median / seconds[0]:.2f}"
        yield name, f"{epochs:.0f}", *times, f"{ratio:.3f}", f"{nats:.2f}"


def search(arguments):
    yield (
        f"2,000 x 30 cells, {len(SIZES)} values of n_components, a quarter of the rows held out: "
        "seconds, their ratio to those of one fit, and selected n_components"
    )
    yield "search", "seconds", "time ratio", "selected"
    X, model = make_rows(0.1, n=2000), Autoencoder(random_state=0)
    cv = ShuffleSplit(1, test_size=0.25, random_state=0)
    first = Autoencoder(6, random_state=0).fit(X)  # the first fit also imports modules
    _, fit_seconds = timed(lambda: first.fit(X))
    yield "one fit, 6 components", f"{fit_seconds:.1f}", "1.0", "-"
    grid = GridSearchCV(model, {"n_components": SIZES}, cv=cv, refit=False)
    grid, seconds = timed(lambda: grid.fit(X))
    best = str(grid.best_params_["n_components"])
    yield "GridSearchCV", f"{seconds:.1f}", f"{seconds / fit_seconds:.1f}", best
    path, seconds = timed(lambda: components_path(model, X, param_range=SIZES, cv=cv))
    yield "components_path", f"{seconds:.1f}", f"{seconds / fit_seconds:.1f}", str(path.suggested)


TABLES = {
    "tables": (tables, ("<20", ">16", ">12", ">13", ">8", ">16", ">9", ">12")),
    "settings": (settings, ("<31", ">8", ">9", ">12", ">13", ">16")),
    "search": (search, ("<22", ">9", ">12", ">10")),
}


def main():
    """Print the tables and write them if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of more tables")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--sets", nargs="*", help="names of the sets in `tables`")
    parser.add_argument("--rst", metavar="FOLDER", help="where to write the tables for the docs")
    arguments = parser.parse_args()
    print(describe_machine())
    for name, (table, formats) in TABLES.items():
        if arguments.only in (None, name):
            rst = arguments.rst and Path(arguments.rst) / f"{name}_table.rst"
            show(table(arguments), formats, "tables.py", rst)


if __name__ == "__main__":
    main()
