"""All variants and PCA on three tables whose rows have classes.

Every model has its defaults and, where its code is shorter than the row, the same number of
components: 8 for digits, 5 for breast_cancer, 4 for wine. SparseAutoencoder keeps its wide code and
VectorQuantizedAutoencoder its own size, as the number of its codes limits what it can say.
Each data set is split 70/30 several times. Printed per set and model, on held-out rows, as means
over the splits: squared error per row, nats per row, accuracy of a 5-nearest-neighbour classifier
that knows the training rows' codes, and the share of the code's cells that is active, farther from
0 than a thousandth of their column's standard deviation; then the median of seconds per fit.

Run `python examples/benchmarks/variants.py [--splits 3] [--only digits] [--rst FILE]`.
"""

import argparse
import time

import numpy as np
from _machine import describe_machine
from _table import aligned, write_rst
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from skae import (
    AdversarialAutoencoder,
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    SparseAutoencoder,
    VariationalAutoencoder,
    VectorQuantizedAutoencoder,
    WassersteinAutoencoder,
)

TABLES = {
    "digits": (load_digits, 8, False),
    "breast_cancer": (load_breast_cancer, 5, True),
    "wine": (load_wine, 4, True),
}
"""How to load a set, the size of its codes, and whether to standardise its columns."""

MODELS = (
    PCA,
    Autoencoder,
    SparseAutoencoder,
    DenoisingAutoencoder,
    ContractiveAutoencoder,
    VariationalAutoencoder,
    VectorQuantizedAutoencoder,
    WassersteinAutoencoder,
    AdversarialAutoencoder,
)

OWN_SIZE = (SparseAutoencoder, VectorQuantizedAutoencoder)
"""Models that choose the size of their codes."""

HEADER = ("set", "model", "code", "squared error", "nats", "5-NN", "active", "seconds")
FORMATS = ("<15", "<28", ">5", ">15", ">10", ">8", ">8", ">9")


def measure(kind, k, train, test, y_train, y_test, seed):
    """Size of the code, held-out squared error, nats, accuracy, active share; seconds."""
    size = {} if kind in OWN_SIZE else {"n_components": k}
    model = kind(**size, random_state=seed)
    start = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - start
    codes, test_codes = model.transform(train), model.transform(test)
    squares = ((model.inverse_transform(test_codes) - test) ** 2).sum(axis=1)
    classifier = KNeighborsClassifier(5).fit(codes, y_train)
    return (
        codes.shape[1],
        squares.mean(),
        model.score(test),
        classifier.score(test_codes, y_test),
        (abs(test_codes) > 1e-3 * codes.std(axis=0)).mean(),
        seconds,
    )


def compare(name, n_splits):
    """Yield one row of the table per model."""
    load, k, standardize = TABLES[name]
    X, y = load(return_X_y=True)
    splits = []
    for seed in range(n_splits):
        train, test, *classes = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=y)
        if standardize:
            scaler = StandardScaler().fit(train)
            train, test = scaler.transform(train), scaler.transform(test)
        splits.append((train, test, *classes, seed))
    for kind in MODELS:
        results = np.array([measure(kind, k, *split) for split in splits])
        size, squares, nats, accuracy, active, _ = results.mean(axis=0)
        yield (
            name,
            kind.__name__,
            f"{size:.0f}",
            f"{squares:.2f}",
            f"{nats:.2f}",
            f"{accuracy:.3f}",
            f"{active:.2f}",
            f"{np.median(results[:, -1]):.2f}",
        )


def main():
    """Print the table and, if asked to, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=TABLES, help="names of the sets to run")
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    print(describe_machine())
    print(aligned(HEADER, FORMATS))
    rows = []
    for name in arguments.only or TABLES:
        for row in compare(name, arguments.splits):
            rows.append(row)
            print(aligned(row, FORMATS), flush=True)
    if arguments.rst:
        caption = f"Held-out rows, means over {arguments.splits} splits; of seconds, the median"
        write_rst(arguments.rst, "variants.py", caption, HEADER, rows)


if __name__ == "__main__":
    main()
