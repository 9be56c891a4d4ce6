"""PCA and eight unsupervised autoencoders on three tables whose rows have classes.

All models have their default parameters. Most of them have the same number of components: 8 for
digits, 5 for breast_cancer, 4 for wine. SparseAutoencoder and VectorQuantizedAutoencoder keep their
default numbers of components. The former is meant to have a wide code. For the latter, the number
of vectors limits the information in a code, and their length does not.

Each data set is split 70/30 several times. The table shows, for each data set and model:

- the squared error per row;
- the log-density in nats per row;
- the accuracy of a 5-nearest-neighbor classifier that is fitted to the codes of the training rows;
- the share of active cells of the codes, which differ from 0 by more than a thousandth of the
  standard deviation of their component;
- the seconds of a fit.

The seconds are the median over splits. The others are means over splits, for held-out rows.

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
"""Function that loads the data set, n_components, and whether to standardize the columns."""

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
"""Models that keep their default number of components."""

HEADER = ("data set", "model", "components", "squared error", "nats", "5-NN", "active", "seconds")
FORMATS = ("<15", "<28", ">11", ">15", ">10", ">8", ">8", ">9")


def measure(kind, k, train, test, y_train, y_test, seed):
    """Return number of components, held-out error, nats, accuracy, active share and seconds."""
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
    """Print the table and write it if `--rst` is given."""
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
        caption = f"Held-out rows: means over {arguments.splits} splits, median seconds"
        write_rst(arguments.rst, "variants.py", caption, HEADER, rows)


if __name__ == "__main__":
    main()
