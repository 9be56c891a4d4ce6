"""Classifiers that are trained with few labels, and two that are trained with all labels.

There are three sections, each with its own table:

- mnist: 10,000 training rows of grayscale MNIST, of which 10 per class are labeled. The labeled
  rows are chosen at random 5 times. The table shows the error on 10,000 test rows, as mean and
  standard deviation over the choices, and the median seconds of a fit, which include all steps of a
  pipeline. M1 and M2 are the models of Kingma et al., 2014. M2 is
  SemiSupervisedVariationalAutoencoder. M1 is a variational autoencoder with a Bernoulli likelihood.
  In "M1 + M2", the codes of M1 are the input of M2.
- digits: scikit-learn's digits with 5 labels per class, split 70/30 ten times. The models of
  "labels alone" are fitted to the labeled rows only. The table shows the mean accuracy on held-out
  rows. It also shows the mean difference from the accuracy of each of the first two models on the
  same splits, in percentage points, with its standard error.
- full: digits with all labels, split in the same way. AutoencoderClassifier is compared with an
  MLPClassifier whose hidden layers have the same widths, on raw and on standardized pixels.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/few_labels.py --data DIR [--only SECTION ...]
[--draws N] [--rst DIR]`. The data folder holds `mnist_train10k.npz` and `mnist_test10k.npz` with
the keys `X` and `y`. Only the section mnist reads them.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import show
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from skae import (
    Autoencoder,
    AutoencoderClassifier,
    SemiSupervisedVariationalAutoencoder,
    VariationalAutoencoder,
)

LAYERS = (256, 128, 16)
"""Widths of AutoencoderClassifier's encoder on digits. The last one is the size of the code."""


class LabeledOnly(ClassifierMixin, BaseEstimator):
    """A classifier that is fitted to the labeled rows only."""

    def __init__(self, classifier):
        self.classifier = classifier

    def fit(self, X, y):
        self.classifier_ = clone(self.classifier).fit(X[y != -1], y[y != -1])
        return self

    def predict(self, X):
        return self.classifier_.predict(X)


class PreTrained(ClassifierMixin, BaseEstimator):
    """A classifier that is initialized by the default autoencoder, trained on all rows."""

    def __init__(self, fine_tune, random_state):
        self.fine_tune = fine_tune
        self.random_state = random_state

    def fit(self, X, y):
        first = AutoencoderClassifier(fine_tune=False, random_state=self.random_state)
        self.first_ = first.fit(X, y)
        self.classifier_ = AutoencoderClassifier(
            FrozenEstimator(first.autoencoder_),
            fine_tune=self.fine_tune,
            random_state=self.random_state,
        ).fit(first.preprocess(X), y)
        return self

    def predict(self, X):
        return self.classifier_.predict(self.first_.preprocess(X))


def m2(seed):
    """Return the M2 that is used for MNIST."""
    return SemiSupervisedVariationalAutoencoder(max_epochs=20, random_state=seed)


def logistic():
    """Return a logistic regression with enough iterations to converge."""
    return LogisticRegression(max_iter=1000)


MNIST_MODELS = {
    "LogisticRegression": lambda seed: LabeledOnly(logistic()),
    "1-NN": lambda seed: LabeledOnly(KNeighborsClassifier(1)),
    "PCA(50) + LogisticRegression": lambda seed: make_pipeline(PCA(50), LabeledOnly(logistic())),
    "PCA(50) + LabelSpreading": lambda seed: make_pipeline(
        PCA(50), LabelSpreading(kernel="knn", n_neighbors=10)
    ),
    "AutoencoderClassifier": lambda seed: AutoencoderClassifier(random_state=seed),
    "AutoencoderClassifier, fine_tune=False": lambda seed: AutoencoderClassifier(
        fine_tune=False, random_state=seed
    ),
    "AutoencoderClassifier, propagate=False": lambda seed: AutoencoderClassifier(
        propagate=False, random_state=seed
    ),
    "M2": m2,
    "M1 + M2": lambda seed: make_pipeline(
        VariationalAutoencoder(50, likelihood="bernoulli", max_epochs=20, random_state=seed),
        m2(seed),
    ),
    "Autoencoder(50) + M2": lambda seed: make_pipeline(
        Autoencoder(50, max_epochs=20, random_state=seed), m2(seed)
    ),
    "PCA(50) + M2": lambda seed: make_pipeline(PCA(50), m2(seed)),
}

ALONE = ("MLPClassifier, labels alone", "AutoencoderClassifier, labels alone")

DIGITS_MODELS = {
    ALONE[0]: lambda seed: LabeledOnly(MLPClassifier(LAYERS, random_state=seed)),
    ALONE[1]: lambda seed: LabeledOnly(
        AutoencoderClassifier(reconstruction_weight=0, random_state=seed)
    ),
    "LogisticRegression, labels alone": lambda seed: LabeledOnly(logistic()),
    "AutoencoderClassifier, all rows": lambda seed: AutoencoderClassifier(random_state=seed),
    "AutoencoderClassifier, propagate=False": lambda seed: AutoencoderClassifier(
        propagate=False, random_state=seed
    ),
    "pre-trained, fine-tuned": lambda seed: PreTrained(True, seed),
    "pre-trained, fine_tune=False": lambda seed: PreTrained(False, seed),
    "M2": lambda seed: SemiSupervisedVariationalAutoencoder(max_epochs=30, random_state=seed),
}

FULL_MODELS = {
    "raw": (
        lambda seed: MLPClassifier(LAYERS, random_state=seed),
        lambda seed: AutoencoderClassifier(random_state=seed),
    ),
    "standardized": (
        lambda seed: make_pipeline(StandardScaler(), MLPClassifier(LAYERS, random_state=seed)),
        lambda seed: make_pipeline(StandardScaler(), AutoencoderClassifier(random_state=seed)),
    ),
}
"""MLPClassifier and AutoencoderClassifier for raw and for standardized pixels."""


def keep_few(y, n_per_class, seed):
    """Return the classes of `n_per_class` random rows of each class, and -1 for other rows."""
    random_state = np.random.RandomState(seed)
    few = np.full_like(y, -1)
    for c in np.unique(y):
        few[random_state.choice(np.flatnonzero(y == c), n_per_class, replace=False)] = c
    return few


def load_images(folder, name):
    """Load pixels in [0, 1] and classes."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return (file["X"] / 255).astype(np.float32), file["y"].astype(np.int64)


def digits_splits(n_draws):
    """Return training rows, held-out rows, and the classes of both, for each split."""
    X, y = load_digits(return_X_y=True)
    return [
        train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
        for seed in range(n_draws)
    ]


def measure(make, draws):
    """Return arrays of accuracies on test rows, in percent, and of seconds per fit, over draws."""
    figures = []
    for seed, (X, X_test, y, y_test) in enumerate(draws):
        model = make(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.perf_counter()
            model.fit(X, y)
            seconds = time.perf_counter() - start
        figures.append((100 * (model.predict(X_test) == y_test).mean(), seconds))
    return np.array(figures).T


def difference(a, b):
    """Return the mean of paired differences and its standard error, as a string."""
    return f"{(a - b).mean():+.1f} ± {(a - b).std(ddof=1) / len(a) ** 0.5:.1f}"


def mnist(folder, n_draws):
    """Yield the caption, the header and the rows of the table of MNIST with 100 labels."""
    (X, y), (X_test, y_test) = (
        load_images(folder, name) for name in ("mnist_train10k", "mnist_test10k")
    )
    draws = [(X, X_test, keep_few(y, 10, seed), y_test) for seed in range(n_draws)]
    yield (
        f"MNIST, 10,000 rows, 100 labels: mean ± standard deviation over {n_draws} choices of the "
        "labels, median seconds"
    )
    yield "model", "error, %", "seconds"
    for name, make in MNIST_MODELS.items():
        accuracies, seconds = measure(make, draws)
        error = f"{(100 - accuracies).mean():.1f} ± {accuracies.std(ddof=1):.1f}"
        yield name, error, f"{np.median(seconds):.1f}"


def digits(folder, n_draws):
    """Yield the caption, the header and the rows of the table of digits with 50 labels."""
    draws = [
        (X, X_test, keep_few(y, 5, seed), y_test)
        for seed, (X, X_test, y, y_test) in enumerate(digits_splits(n_draws))
    ]
    results = {name: measure(make, draws) for name, make in DIGITS_MODELS.items()}
    yield (
        f"Digits, 50 labels: mean accuracy over {n_draws} splits, its differences from the first "
        "two models in percentage points ± standard error, median seconds"
    )
    yield "model", "accuracy, %", "minus the first", "minus the second", "seconds"
    for name, (accuracies, seconds) in results.items():
        over = ["" if name == a else difference(accuracies, results[a][0]) for a in ALONE]
        yield name, f"{accuracies.mean():.1f}", *over, f"{np.median(seconds):.2f}"


def full(folder, n_draws):
    """Yield the caption, the header and the rows of the table of digits with all labels."""
    draws = digits_splits(n_draws)
    yield (
        f"Digits, all labels: mean accuracy over {n_draws} splits, its difference from "
        "MLPClassifier in percentage points ± standard error, median seconds"
    )
    yield "pixels", "model", "accuracy, %", "minus MLPClassifier", "seconds"
    for pixels, makes in FULL_MODELS.items():
        (plain, plain_seconds), (ours, our_seconds) = (measure(make, draws) for make in makes)
        yield pixels, "MLPClassifier", f"{plain.mean():.1f}", "", f"{np.median(plain_seconds):.2f}"
        yield (
            pixels,
            "AutoencoderClassifier",
            f"{ours.mean():.1f}",
            difference(ours, plain),
            f"{np.median(our_seconds):.2f}",
        )


SECTIONS = {
    "mnist": (mnist, 5, "few_labels_table.rst", ("<40", ">12", ">9")),
    "digits": (digits, 10, "digits_labels_table.rst", ("<38", ">12", ">17", ">18", ">9")),
    "full": (full, 10, "digits_all_labels_table.rst", ("<14", "<23", ">12", ">21", ">9")),
}
"""Sections by name: function that yields the table, number of draws, file, column formats."""


def main():
    """Print the tables and write them if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of the MNIST files")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, help="sections to run")
    parser.add_argument("--draws", type=int, help="number of draws, at least 2, in each section")
    parser.add_argument("--rst", metavar="DIR", type=Path, help="folder to write the tables to")
    arguments = parser.parse_args()
    print(describe_machine())
    for name in arguments.only or SECTIONS:
        section, n_draws, file, formats = SECTIONS[name]
        table = section(arguments.data, arguments.draws or n_draws)
        show(table, formats, "few_labels.py", arguments.rst and arguments.rst / file)


if __name__ == "__main__":
    main()
