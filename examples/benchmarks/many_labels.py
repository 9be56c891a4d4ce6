"""Several targets per row: labels that share a code, labels that are added later, and numbers.

All data sets are split into the same five folds, and columns are standardized by their training
rows.

sets: the multi-label data sets emotions, scene, yeast and birds. AutoencoderClassifier is compared
with one logistic regression per label, on the columns and on as many components of PCA as the code
of the classifier has. The table shows four numbers for each data set and model, and for each model
over all data sets:

- the micro-averaged F1 score, where labels with a probability above .5 are predicted;
- the average precision, as the mean over the labels that occur in the held-out rows;
- the number of parameters that predict labels from standardized rows, without the decoder;
- the seconds of a fit.

The first three are means over folds, the seconds are the median.

added: each of yeast's 14 labels in turn is left out of the fit and added afterwards, from 50 rows
and from all training rows. The table shows the area under the ROC curve of this label for the
classifier to which it is added, for a fit to all 14 labels at once, and for a logistic regression
on the columns. All three are trained with the same values of this label. The areas are means over
labels and folds. The last column is the number of fits in which adding the label leaves the
probabilities of the other labels unchanged, bit for bit.

pls: AutoencoderRegressor with linear codes, PLSRegression, and linear regression on components of
PCA, with 1, 2, 4 and 8 components. The target is the last column of the tables wine and elevators,
or the 14 labels of yeast as numbers. The table shows, for each data set, model and number of
components, R2 of the targets of held-out rows, and the share of the variance of these rows that
their reconstructions from the codes explain. Both are means over folds.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/many_labels.py --data DIR [--only SECTION ...]
[--folds N] [--rst DIR]`. The data folder holds `multilabel/*.npz` with the keys `X` and `Y`, labels
of 0 and 1, and `tabular/*.npz` with the key `X`.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import show
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, r2_score, roc_auc_score
from sklearn.model_selection import KFold, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, AutoencoderClassifier, AutoencoderRegressor

SETS = ("emotions", "scene", "yeast", "birds")
TABLES = ("wine", "elevators")
FEW = 50
SIZES = (1, 2, 4, 8)
LABEL_WEIGHTS = (1, 10, 100)


def load_labels(folder, name):
    """Load rows, and labels of 0 and 1."""
    with np.load(folder / "multilabel" / f"{name}.npz", allow_pickle=False) as file:
        return file["X"].astype(np.float64), file["Y"].astype(np.int64)


def load_table(folder, name):
    """Load a table, and return the last column separately from the others."""
    with np.load(folder / "tabular" / f"{name}.npz", allow_pickle=False) as file:
        table = file["X"].astype(np.float64)
    return table[:, :-1], table[:, -1:]


def folds(X, Y, n_folds):
    """Yield standardized training rows and held-out rows, and the targets of both."""
    splits = KFold(5, shuffle=True, random_state=0).split(X)
    for train, test in list(splits)[:n_folds]:
        scaler = StandardScaler().fit(X[train])
        yield scaler.transform(X[train]), scaler.transform(X[test]), Y[train], Y[test]


def fit_timed(model, X, Y):
    """Fit a model, and return it with the seconds of the fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        model.fit(X, Y)
        return model, time.perf_counter() - start


def logistic():
    """Return a logistic regression with enough iterations to converge."""
    return LogisticRegression(max_iter=1000)


def classifiers(k):
    """Return unfitted multi-label classifiers by name, for codes of size k."""
    return {
        "LogisticRegression": OneVsRestClassifier(logistic()),
        "PCA + LogisticRegression": make_pipeline(PCA(k), OneVsRestClassifier(logistic())),
        "AutoencoderClassifier": AutoencoderClassifier(random_state=0),
    }


def count_parameters(model, d, k, m):
    """Return the number of parameters that predict m labels from rows of d columns."""
    if isinstance(model, OneVsRestClassifier):
        return (d + 1) * m
    if isinstance(model, AutoencoderClassifier):
        to_code = sum(p.numel() for p in model.autoencoder_.module_.encoder.parameters())
    else:
        to_code = d * k
    return to_code + (k + 1) * m


def mean_precision(Y, probability):
    """Return the mean of the average precision over labels that occur."""
    occur = Y.any(axis=0)
    return average_precision_score(Y[:, occur], probability[:, occur])


def sets(folder, n_folds):
    """Yield the caption, the header and the rows of the table of multi-label sets."""
    yield f"Multi-label sets: means over the held-out rows of {n_folds} folds, median seconds"
    yield "set", "model", "micro F1", "average precision", "parameters", "seconds"
    results = {}
    for name in SETS:
        X, Y = load_labels(folder, name)
        d, m = X.shape[1], Y.shape[1]
        k = round(2 * d**0.5)
        for train, test, Y_train, Y_test in folds(X, Y, n_folds):
            for kind, model in classifiers(k).items():
                model, seconds = fit_timed(model, train, Y_train)
                probability = model.predict_proba(test)
                figures = (
                    f1_score(Y_test, probability > 0.5, average="micro"),
                    mean_precision(Y_test, probability),
                    count_parameters(model, d, k, m),
                    seconds,
                )
                results.setdefault(kind, {}).setdefault(name, []).append(figures)
        for kind, of_sets in results.items():
            yield name, kind, *format_row(of_sets[name])
    for kind, of_sets in results.items():
        yield "mean", kind, *format_row(np.vstack([*of_sets.values()]))


def format_row(figures):
    """Format means of F1, precision and parameters, and the median of seconds."""
    f1, precision, parameters, _ = np.mean(figures, axis=0)
    seconds = np.median(figures, axis=0)[-1]
    return f"{f1:.3f}", f"{precision:.3f}", f"{parameters:,.0f}", f"{seconds:.2f}"


def added(folder, n_folds):
    """Yield the caption, the header and the rows of the table of labels that are added."""
    yield (
        "Yeast: area under the ROC curve of a label for held-out rows, mean over labels and "
        f"{n_folds} folds"
    )
    yield (
        "rows with the label",
        "added later",
        "fit at once",
        "difference",
        "LogisticRegression",
        "other labels unchanged",
    )
    areas, unchanged = [], []
    for fold, (X, X_test, Y, Y_test) in enumerate(folds(*load_labels(folder, "yeast"), n_folds)):
        at_once = AutoencoderClassifier(random_state=0).fit(X, Y).predict_proba(X_test)
        for j, (y, y_test) in enumerate(zip(Y.T, Y_test.T, strict=True)):
            few, _ = train_test_split(
                np.arange(len(X)), train_size=FEW, stratify=y, random_state=fold
            )
            model = AutoencoderClassifier(random_state=0).fit(X, np.delete(Y, j, axis=1))
            before = model.predict_proba(X_test)
            known = np.where(np.isin(np.arange(len(X)), few), y, np.nan)
            labels = np.c_[np.delete(Y, j, axis=1), known]
            with_few = AutoencoderClassifier(random_state=0).fit(X, labels).predict_proba(X_test)
            for rows, joint in ((few, with_few[:, -1]), (np.arange(len(X)), at_once[:, j])):
                model.add_label(X[rows], y[rows])
                alone = logistic().fit(X[rows], y[rows]).predict_proba(X_test)[:, 1]
                after = model.predict_proba(X_test)
                probabilities = after[:, -1], joint, alone
                areas.append([roc_auc_score(y_test, scores) for scores in probabilities])
                unchanged.append(np.array_equal(after[:, : before.shape[1]], before))
    for i, rows in enumerate((str(FEW), "all")):
        new, joint, alone = np.mean(areas[i::2], axis=0)
        same = unchanged[i::2]
        yield (
            rows,
            f"{new:.3f}",
            f"{joint:.3f}",
            f"{new - joint:+.3f}",
            f"{alone:.3f}",
            f"{sum(same)} of {len(same)}",
        )


def regressors(k):
    """Return unfitted regressors for codes of size k by name, with a function for each.

    The function returns rows in the units in which the codes were computed, and reconstructions.
    """

    def from_pca(model, X):
        return X, model[0].inverse_transform(model[0].transform(X))

    def from_pls(model, X):
        return X, model.inverse_transform(model.transform(X))

    def from_autoencoder(model, X):
        rows = model.preprocess(X)
        return rows, model.autoencoder_.reconstruct(rows)

    linear = Autoencoder(k, hidden_layer_sizes=())
    return {
        "PCA + LinearRegression": (make_pipeline(PCA(k), LinearRegression()), from_pca),
        "PLSRegression": (PLSRegression(k), from_pls),
    } | {
        f"AutoencoderRegressor, label_weight={weight}": (
            AutoencoderRegressor(linear, label_weight=weight, random_state=0),
            from_autoencoder,
        )
        for weight in LABEL_WEIGHTS
    }


def pls(folder, n_folds):
    """Yield the caption, the header and the rows of the table of linear codes."""
    yield (
        "Linear codes of k components: R² of the targets y, and share of the variance of X that is "
        f"reconstructed, means over the held-out rows of {n_folds} folds"
    )
    yield "set", "model", *[f"{side}, k={k}" for side in "yX" for k in SIZES]
    tables = {name: load_table(folder, name) for name in TABLES}
    for name, (X, Y) in (tables | {"yeast": load_labels(folder, "yeast")}).items():
        results = {}
        for train, test, Y_train, Y_test in folds(X, Y, n_folds):
            for k in SIZES:
                for kind, (model, restore) in regressors(k).items():
                    model, _ = fit_timed(model, train, Y_train)
                    rows, restored = restore(model, test)
                    lost = ((restored - rows) ** 2).sum() / ((rows - rows.mean(0)) ** 2).sum()
                    figures = r2_score(Y_test, model.predict(test)), 1 - lost
                    results.setdefault(kind, {}).setdefault(k, []).append(figures)
        for kind, of_sizes in results.items():
            means = np.mean([*of_sizes.values()], axis=1)
            yield name, kind, *[f"{figure:.3f}" for figure in means.T.ravel()]


SECTIONS = {
    "sets": (sets, "many_labels_table.rst", ("<10", "<26", ">10", ">19", ">12", ">9")),
    "added": (added, "added_labels_table.rst", ("<20", ">13", ">13", ">12", ">20", ">24")),
    "pls": (pls, "pls_table.rst", ("<11", "<40", *[">8"] * 8)),
}
"""Sections by name: a function that yields the table, its file, and formats of columns."""


def main():
    """Print the tables and write them if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of the sets' folders")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, help="sections to run")
    parser.add_argument("--folds", type=int, default=5, help="how many of the five to run")
    parser.add_argument("--rst", metavar="DIR", type=Path, help="folder to write the tables to")
    arguments = parser.parse_args()
    print(describe_machine())
    for name in arguments.only or SECTIONS:
        section, file, formats = SECTIONS[name]
        table = section(arguments.data, arguments.folds)
        show(table, formats, "many_labels.py", arguments.rst and arguments.rst / file)


if __name__ == "__main__":
    main()
