"""Models on features of autoencoders, compared with simpler features, with many and few labels.

There are five tables, each printed with its caption.

- `tables`: 23 tables of at most 2,000 rows, five folds. The score is the balanced accuracy of a
  logistic regression (C=0.3, balanced classes), or the R² of a ridge regression whose penalty is
  chosen by generalized cross-validation. "columns" is the score on standardized columns, clipped at
  4 deviations. The next lines are differences from it. "features" are those of AutoencoderFeatures
  with its defaults. "Nystroem" joins the standardized columns with as many features of the kernel
  exp(-|a-b|²/d) as there are hidden units. In "scaled", these have the same sum of variances as the
  hidden units, and otherwise each has a variance of 1. "MLP" is scikit-learn's multilayer
  perceptron with its defaults on the standardized columns.
- `size`: the same tables and folds, with as many features as the rounded root of the number of
  columns. Scores of the same linear models on standardized features, and of five nearest neighbors
  on features as they are, minus those with PCA of the standardized columns. "features" are those of
  AutoencoderFeatures with `n_features`. "Autoencoder" are the codes of the default autoencoder of
  the standardized columns.
- `mixed`: seven raw tables with categories, dates and missing cells, of which 1,500 random rows are
  used, three folds. "one-hot" are one-hot encoded categories and standardized numbers. "inputs" are
  the features without the hidden units. The models are a logistic regression or a ridge regression
  with their defaults. The targets are those of mixed.py.
- `few`: the classification tables whose rarest class has at least half of an equal share of the
  rows. A random third of the rows is held out, ten times. Of the training rows, 10, 25 or 50 have a
  label, at least one of each class. The score is the balanced accuracy on the held-out rows, as
  mean over the draws. "joint" is AutoencoderClassifier with its defaults. "features" is a logistic
  regression on AutoencoderFeatures of all training rows. "self-training" and "spreading" are
  scikit-learn's SelfTrainingClassifier of a logistic regression, and LabelSpreading with 7 nearest
  neighbors, on the standardized columns. The last column shows whether the mean of "joint" is at
  least the best of the others minus one standard error of its difference from "joint".
- `time`: processor seconds of `AutoencoderFeatures().fit` and of `transform`.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/features.py --data DIR [--only TABLE] [--folds 5]
[--draws 10] [--rst FOLDER]`. DIR holds `tabular/*.npz` with a key `X`, whose last column is the
target, `outliers/*.npz` with the keys `X` and `y`, and `mixed/*.csv.gz`.
"""

import argparse
import itertools
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _mixed_data import OneHotPCA, read_frame
from _numeric_data import NAMES, read_labeled
from _table import show
from mixed import PREDICTIONS
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, get_scorer
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FunctionTransformer, make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from tables import timed

from skae import Autoencoder, AutoencoderClassifier, AutoencoderFeatures

TOTAL_VARIANCE = 4
"""Sum of the variances of the hidden units that AutoencoderFeatures returns."""


def clip(X):
    return np.clip(X, -4, 4)


def standardize():
    return make_pipeline(StandardScaler(), FunctionTransformer(clip))


def multiply(X, factor):
    return factor * X


def nystroem(table, n_units, is_scaled):
    """Return standardized columns and features of a kernel."""
    d = table.X.shape[1]
    factor = (TOTAL_VARIANCE / n_units) ** 0.5 if is_scaled else 1.0
    scaled = FunctionTransformer(multiply, kw_args={"factor": factor})
    kernel = Nystroem(gamma=1 / d, n_components=n_units, random_state=0)
    return make_pipeline(
        standardize(), make_union("passthrough", make_pipeline(kernel, standardize(), scaled))
    )


def perceptron(table):
    kind = MLPRegressor if table.is_regression else MLPClassifier
    return make_pipeline(standardize(), kind(random_state=0))


def fold_scores(table, train, test):
    """Return the scores of all models for one fold."""
    X, y = table.X[train], table.y[train]
    features = AutoencoderFeatures(random_state=0).fit(X)
    n_units = min(features.transform(X[:1]).shape[1] - X.shape[1], len(X))
    steps = [
        standardize(),
        features,
        nystroem(table, n_units, True),
        nystroem(table, n_units, False),
    ]
    scores = []
    for step in steps:
        F = step.transform(X) if step is features else step.fit_transform(X)
        model = table.linear_model().fit(F, y)
        scores.append(table.score(model, step.transform(table.X[test]), table.y[test]))
    model = perceptron(table).fit(X, y)
    return [*scores, table.score(model, table.X[test], table.y[test])]


def tables(arguments):
    yield f"Linear models: means over {arguments.folds} folds, and differences from columns"
    yield "table", "rows x columns", "columns", "features", "Nystroem, scaled", "Nystroem", "MLP"
    gains = []
    for name in NAMES:
        table = read_labeled(arguments.data, name)
        scores = [fold_scores(table, *rows) for rows in table.folds(arguments.folds)]
        first, *rest = np.mean(scores, axis=0)
        gains.append(np.array(rest) - first)
        size = f"{table.X.shape[0]:,} x {table.X.shape[1]}"
        yield name, size, f"{first:.3f}", *(f"{gain:+.3f}" for gain in gains[-1])
    for label, statistic in (("mean", np.mean), ("median", np.median), ("worst", np.min)):
        yield label, "", "", *(f"{value:+.3f}" for value in statistic(gains, axis=0))
    counts = (np.array(gains) >= -0.005).sum(axis=0)
    yield "at least -.005", "", "", *(f"{count} of {len(gains)}" for count in counts)


def reduced_scores(table, train, test):
    """Return the scores of a linear model and of nearest neighbors for each kind of features."""
    d = table.X.shape[1]
    k = round(d**0.5)
    kind = KNeighborsRegressor if table.is_regression else KNeighborsClassifier
    scores = []
    for step in (
        make_pipeline(standardize(), PCA(k, random_state=0)),
        AutoencoderFeatures(n_features=k, random_state=0),
        make_pipeline(standardize(), Autoencoder(k, random_state=0)),
    ):
        known, unknown = step.fit_transform(table.X[train]), step.transform(table.X[test])
        models = make_pipeline(standardize(), table.linear_model()), kind(5)
        scores += [
            table.score(model.fit(known, table.y[train]), unknown, table.y[test])
            for model in models
        ]
    return scores


def size(arguments):
    yield f"As many features as the root of the number of columns, {arguments.folds} folds"
    yield (
        *("table", "features", "linear, PCA", "features", "Autoencoder"),
        *("5 neighbors, PCA", "features", "Autoencoder"),
    )
    gains = []
    for name in NAMES:
        table = read_labeled(arguments.data, name)
        scores = [reduced_scores(table, *rows) for rows in table.folds(arguments.folds)]
        scores = np.mean(scores, axis=0).reshape(3, 2)
        gains.append((scores[1:] - scores[0]).T.ravel())
        own = [f"{gain:+.3f}" for gain in gains[-1]]
        linear, neighbors = (f"{score:.3f}" for score in scores[0])
        yield name, str(round(table.X.shape[1] ** 0.5)), linear, *own[:2], neighbors, *own[2:]
    for label, statistic in (("mean", np.mean), ("median", np.median), ("worst", np.min)):
        own = [f"{value:+.3f}" for value in statistic(gains, axis=0)]
        yield label, "", "", *own[:2], "", *own[2:]


def label_few(y, n, seed):
    """Return the classes of `n` random rows, at least one of each class, and -1 for other rows."""
    random_state = np.random.RandomState(seed)
    order = random_state.permutation(len(y))
    first = np.unique(y[order], return_index=True)[1]
    rest = np.delete(np.arange(len(y)), first)[: max(0, n - len(first))]
    few = np.full(len(y), -1)
    chosen = order[np.concatenate([first, rest])]
    few[chosen] = y[chosen]
    return few


def few_scores(table, n_labels, seed):
    """Return balanced accuracies (len(n_labels), 4) of all models for one split of the rows."""
    classes = np.unique(table.y, return_inverse=True)[1]
    X, X_test, y, y_test = train_test_split(
        table.X, classes, test_size=1 / 3, stratify=classes, random_state=seed
    )
    features = AutoencoderFeatures(random_state=seed).fit(X)
    F, F_test = features.transform(X), features.transform(X_test)
    scaler = standardize().fit(X)
    Z, Z_test = scaler.transform(X), scaler.transform(X_test)
    logistic = LogisticRegression(max_iter=1000)
    scores = []
    for n in n_labels:
        few = label_few(y, n, seed)
        known = few >= 0
        joint = AutoencoderClassifier(random_state=seed).fit(X, few)
        training = SelfTrainingClassifier(logistic).fit(Z, few)
        spreading = LabelSpreading(kernel="knn", max_iter=100).fit(Z, few)
        predictions = (
            joint.predict(X_test),
            logistic.fit(F[known], few[known]).predict(F_test),
            training.predict(Z_test),
            spreading.predict(Z_test),
        )
        scores.append([balanced_accuracy_score(y_test, p) for p in predictions])
    return scores


def is_balanced(y):
    """Return whether the rarest class has at least half of an equal share of the rows."""
    counts = np.unique(y, return_counts=True)[1]
    return counts.min() >= 0.5 * counts.mean()


def few(arguments):
    n_labels, n_draws = (10, 25, 50), arguments.draws
    yield f"Few labels: mean balanced accuracy over {n_draws} draws"
    yield "table", "labels", "joint", "features", "self-training", "spreading", "joint is best"
    counts, means = [], []
    for name in NAMES:
        table = read_labeled(arguments.data, name)
        if table.is_regression or not is_balanced(table.y):
            continue
        scores = np.array([few_scores(table, n_labels, seed) for seed in range(n_draws)])
        # The mean over numbers of labels decides about the table.
        for n, part in (*zip(map(str, n_labels), scores.swapaxes(0, 1), strict=True),
                        ("mean", scores.mean(axis=1))):  # fmt: skip
            mean = part.mean(axis=0)
            best = 1 + mean[1:].argmax()
            error = (part[:, best] - part[:, 0]).std(ddof=1) / n_draws**0.5
            is_best = mean[0] >= mean[best] - error
            own = ("yes" if mean[0] >= mean[best] else "within 1 s.e.") if is_best else "no"
            yield name, n, *(f"{value:.3f}" for value in mean), own
        counts.append(is_best)
        means.append(mean)
    total = f"{sum(counts)} of {len(counts)} tables"
    yield "mean", "", *(f"{value:.3f}" for value in np.mean(means, axis=0)), total


def mixed(arguments):
    yield "Tables with categories: means over 3 folds, and differences from one-hot encoding"
    yield "table", "rows x columns", "score", "one-hot", "inputs", "features"
    for name, (target, dropped, scoring) in PREDICTIONS.items():
        frame = read_frame(arguments.data, name, 1500)
        X, y = frame.drop(columns=[target, *dropped]), frame[target]
        is_regression = scoring == "r2"
        model = RidgeCV() if is_regression else LogisticRegression(max_iter=2000)
        folds = (KFold if is_regression else StratifiedKFold)(3, shuffle=True, random_state=0)
        scores = []
        for train, test in folds.split(X, y):
            features = AutoencoderFeatures(random_state=0).fit(X.iloc[train])
            inputs = sum("hidden" not in name for name in features.get_feature_names_out())
            # All components are a rotation, which does not change a model with a quadratic penalty.
            everything = OneHotPCA(None).fit(X.iloc[train])
            known, unknown = (features.transform(X.iloc[rows]) for rows in (train, test))
            scores.append(
                [
                    get_scorer(scoring)(model.fit(A, y.iloc[train]), B, y.iloc[test])
                    for A, B in (
                        (everything.transform(X.iloc[train]), everything.transform(X.iloc[test])),
                        (known[:, :inputs], unknown[:, :inputs]),
                        (known, unknown),
                    )
                ]
            )
        first, *rest = np.mean(scores, axis=0)
        size = f"{X.shape[0]:,} x {X.shape[1]}"
        yield name, size, scoring, f"{first:.3f}", *(f"{score - first:+.3f}" for score in rest)


def seconds(arguments):
    yield "AutoencoderFeatures: median of 3 turns"
    yield "rows x columns", "fit, s", "transform, rows/s"
    AutoencoderFeatures(random_state=0).fit(np.eye(3))  # the first fit also imports modules
    for n, d in itertools.product((1000, 10_000), (10, 30)):
        X = np.random.default_rng(0).normal(size=(n, d))
        figures = []
        for _ in range(3):
            model = AutoencoderFeatures(random_state=0)
            fit = timed(partial(model.fit, X))[1]
            figures.append((fit, timed(partial(model.transform, X))[1]))
        fit, transform = np.median(figures, axis=0)
        yield f"{n:,} x {d}", f"{fit:.1f}", f"{n / transform:,.0f}"


TABLES = {
    "tables": (tables, ("<15", ">15", ">9", ">10", ">18", ">10", ">10")),
    "size": (size, ("<15", ">9", ">12", ">10", ">12", ">17", ">10", ">12")),
    "mixed": (mixed, ("<15", ">15", ">10", ">9", ">9", ">10")),
    "few": (few, ("<15", ">7", ">7", ">9", ">14", ">10", ">14")),
    "time": (seconds, ("<15", ">8", ">19")),
}


def main():
    """Print the tables and write them if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the tables")
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=10, help="draws of the table few")
    parser.add_argument("--rst", metavar="FOLDER", help="where to write the tables for the docs")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    # LabelSpreading divides by zero where a row is not connected to any label.
    warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
    print(describe_machine())
    for name, (table, formats) in TABLES.items():
        if arguments.only in (None, name):
            rst = arguments.rst and Path(arguments.rst) / f"features_{name}_table.rst"
            show(table(arguments), formats, "features.py", rst)


if __name__ == "__main__":
    main()
