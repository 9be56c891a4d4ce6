"""Sequences: one-dimensional convolutions and recurrent networks against PCA, codes of 8.

The four sets of time series are ItalyPowerDemand, GunPoint, JapaneseVowels (12 channels) and
ECG5000, of which the even rows are used for training. The weight decay of the networks is chosen by
the cross-validated log-density of the training rows only. The table shows, for each set and model,
the squared error per held-out row divided by PCA's, the accuracy of a nearest-neighbor classifier
of the codes, the chosen weight decay, and the seconds of the last fit.

Then the sequences of JapaneseVowels are cut at random lengths. The script prints the largest
difference between the codes of sequences that are padded with NaN and of the same sequences cut
short, and the error on the observed steps, divided by that of PCA, for which missing steps are
filled with the means of the training rows.

Run `python examples/benchmarks/sequences.py --data DIR [--rst FILE]`. DIR holds
`ItalyPowerDemand.npz`, `GunPoint.npz`, `JapaneseVowels.npz` (arrays X_train (n, channels, time),
y_train, X_test, y_test) and `ECG5000_train.npz` (X (n, time), y).
"""

import argparse
import time
from pathlib import Path

import numpy as np
from _table import show
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier

from skae import Autoencoder

SETS = ("ItalyPowerDemand", "GunPoint", "JapaneseVowels", "ECG5000_train")
K = 8
GRID = {"weight_decay": [10.0, 50.0, 200.0]}
FORMATS = ("<20", "<14", ">10", ">10", ">14", ">9")


def load(folder, name):
    """Load sequences (n, channels, time) and labels, for training and held out."""
    with np.load(Path(folder) / f"{name}.npz", allow_pickle=False) as file:
        if "X" in file:
            X, y = file["X"][:, None], file["y"]
            return X[::2], y[::2], X[1::2], y[1::2]
        return tuple(file[key] for key in ("X_train", "y_train", "X_test", "y_test"))


def networks(channels, steps):
    """Return models by name, each with a function that makes rows of (n, channels, time)."""
    conv = Autoencoder(
        K,
        architecture="conv",
        feature_shape=(channels, 1, steps),
        hidden_layer_sizes=(64, 128),
        dropout=0.2,
        max_epochs=200,
        random_state=0,
    )
    recurrent = Autoencoder(
        K,
        architecture="recurrent",
        feature_shape=(steps, channels),
        linear_skip=True,
        random_state=0,
    )
    return {
        "conv": (conv, lambda X: X.reshape(len(X), -1)),
        "recurrent": (recurrent, lambda X: np.swapaxes(X, 1, 2).reshape(len(X), -1)),
    }


def nearest_accuracy(train, y_train, test, y_test):
    return KNeighborsClassifier(1).fit(train, y_train).score(test, y_test)


def table(folder):
    """Yield the caption, the header and the rows of the table."""
    yield "Sequences, 8 components: error relative to PCA and accuracy, held-out rows"
    yield "sequences", "model", "error", "1-NN", "weight_decay", "seconds"
    for name in SETS:
        X, y, Z, z = load(folder, name)
        pca = PCA(K, random_state=0).fit(X.reshape(len(X), -1))
        rows = Z.reshape(len(Z), -1)
        pca_error = ((rows - pca.inverse_transform(pca.transform(rows))) ** 2).sum(axis=1).mean()
        codes = [pca.transform(part.reshape(len(part), -1)) for part in (X, Z)]
        yield name, "PCA", "1.000", f"{nearest_accuracy(codes[0], y, codes[1], z):.3f}", "-", "-"
        for kind, (model, as_rows) in networks(*X.shape[1:]).items():
            train, test = as_rows(X), as_rows(Z)
            search = GridSearchCV(model, GRID, cv=3, refit=False).fit(train)
            model.set_params(**search.best_params_)
            start = time.perf_counter()
            model.fit(train)
            seconds = time.perf_counter() - start
            ratio = model.reconstruction_error(test).mean() / pca_error
            accuracy = nearest_accuracy(model.transform(train), y, model.transform(test), z)
            chosen = f"{model.weight_decay:g}"
            yield name, kind, f"{ratio:.3f}", f"{accuracy:.3f}", chosen, f"{seconds:.1f}"


def report_lengths(folder):
    """Print how codes and errors depend on padding and on missing steps."""
    X, _, Z, _ = load(folder, "JapaneseVowels")
    X, Z = np.swapaxes(X, 1, 2), np.swapaxes(Z, 1, 2)
    rng = np.random.default_rng(0)
    steps, channels = X.shape[1:]
    ragged = []
    for part in (X, Z):
        length = rng.integers(steps // 3, steps + 1, len(part))
        ragged.append(np.where((np.arange(steps) < length[:, None])[..., None], part, np.nan))
    train, test = (part.reshape(len(part), -1) for part in ragged)
    model, _ = networks(channels, steps)["recurrent"]
    model.fit(train)
    difference = 0.0
    for length in range(1, steps):
        padded = np.full_like(Z, np.nan)
        padded[:, :length] = Z[:, :length]
        distances = np.abs(model.transform(padded) - model.transform(Z[:, :length]))
        difference = max(difference, distances.max())
    print(f"\nJapaneseVowels, padded and cut: codes differ by at most {difference:.1e}")
    mean = np.nanmean(train, axis=0)
    pca = PCA(K, random_state=0).fit(np.where(np.isnan(train), mean, train))
    filled = np.where(np.isnan(test), mean, test)
    error = (test - pca.inverse_transform(pca.transform(filled))) ** 2
    ratio = model.reconstruction_error(test).sum() / np.nansum(error)
    print(f"Error on observed steps, divided by that of PCA on filled rows: {ratio:.2f}")


def main():
    """Print the table and write it if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the sequences")
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    show(table(arguments.data), FORMATS, "sequences.py", arguments.rst)
    report_lengths(arguments.data)


if __name__ == "__main__":
    main()
