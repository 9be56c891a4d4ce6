"""Held-out squared error and density of the default autoencoder beside PCA's, on small tables.

Each data set is split 70/30 ten times. Printed per set and code size: the mean ratio of held-out
squared errors, the largest excess over PCA on one split in standard errors of the paired row-wise
difference, the mean held-out nats per row above PCA's, and seconds per fit.

Run `python examples/benchmarks/tables.py [--data DIR]`, DIR holding more tables as `*.npz` with a
key `X`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from _machine import describe_machine
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder


def load_tables(folder):
    """Yield (name, X, code sizes, whether to standardise)."""
    yield "digits", load_digits().data, (2, 4, 8, 16), False
    yield "breast_cancer", load_breast_cancer().data, (2, 5, 8), True
    for load in (load_wine, load_diabetes, load_iris):
        X = load().data
        yield load.__name__.removeprefix("load_"), X, (round(X.shape[1] ** 0.5),), True
    for path in sorted(Path(folder).glob("*.npz")) if folder else []:
        X = np.load(path, allow_pickle=False)["X"].astype(float)
        yield path.stem, X, (round(X.shape[1] ** 0.5),), True


def compare(X, k, standardize, seed):
    """Held-out row errors of PCA and the autoencoder, their difference in nats, seconds."""
    train, test = train_test_split(X, test_size=0.3, random_state=seed)
    if standardize:
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
    pca = PCA(k).fit(train)
    pca_errors = ((pca.inverse_transform(pca.transform(test)) - test) ** 2).sum(axis=1)
    start = time.perf_counter()
    autoencoder = Autoencoder(k, random_state=seed).fit(train)
    seconds = time.perf_counter() - start
    errors = autoencoder.reconstruction_error(test)
    return pca_errors, errors, autoencoder.score(test) - pca.score(test), seconds


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of further tables")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--only", nargs="*", help="names of the sets to run")
    arguments = parser.parse_args()
    print(describe_machine())
    print(
        f"{'set':<22}{'rows x columns':>16}{'k':>4}{'ratio':>8}{'worst s.e.':>12}",
        end="",
    )
    print(f"{'nats above':>12}{'seconds':>9}")
    for name, X, sizes, standardize in load_tables(arguments.data):
        if arguments.only and name not in arguments.only:
            continue
        for k in sizes:
            ratios, excesses, nats, seconds = [], [], [], []
            for seed in range(arguments.splits):
                pca_errors, errors, above, took = compare(X, k, standardize, seed)
                difference = errors - pca_errors
                ratios.append(errors.mean() / pca_errors.mean())
                excesses.append(difference.mean() / (difference.std() / len(difference) ** 0.5))
                nats.append(above)
                seconds.append(took)
            shape = f"{X.shape[0]} x {X.shape[1]}"
            print(
                f"{name:<22}{shape:>16}{k:>4}{np.mean(ratios):>8.3f}{max(excesses):>12.1f}",
                end="",
            )
            print(f"{np.mean(nats):>12.2f}{np.median(seconds):>9.2f}", flush=True)


if __name__ == "__main__":
    main()
