"""What codes tell of sensitive columns and of targets: what probes learn that are trained on it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_consistent_length, column_or_1d

from skae.table.targets import UNLABELED, read_classes

Floats = NDArray[np.floating]

FOLDS = 5
"""Parts of the rows: probes predict each part after they were trained on the others."""

MIN_SAMPLES_LEAF = 5
"""Rows of a forest's leaf: with fewer, its probabilities are too rough to tell how sure it is."""

PROBES: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(min_samples_leaf=MIN_SAMPLES_LEAF, random_state=0),
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
}
"""Probes by what they can see: anything, or what a linear map tells."""


def audit(tables: dict[str, Floats], sensitive: dict[str, NDArray[Any]], y: Any) -> pd.DataFrame:
    """How well probes tell sensitive columns, and a target, from tables of the same rows.

    Parameters
    ----------
    tables : dict of ndarray of shape (n_samples, n_columns)
        What probes are given, by name.
    sensitive : dict of ndarray of shape (n_samples,)
        Classes to be hidden, by name.
    y : array-like of shape (n_samples,) or None
        Classes to predict, -1 where not known.

    Returns
    -------
    report : DataFrame
        A row for each target, probe and measure; a column for knowing nothing, then one for each
        table. The measures are accuracy, area under the ROC curve (AUC) and, of probes for `y`,
        for each sensitive column the demographic-parity gap: the largest difference between its
        groups in how often a class is predicted.
    """
    targets = [(name, classes, False) for name, classes in sensitive.items()]
    if y is not None:
        y = column_or_1d(y, warn=True)
        check_consistent_length(y, *tables.values())
        values = read_classes(y)[1]
        y = np.where(values.any(axis=1), values.argmax(axis=1), UNLABELED)
        targets.append(("y" if "y" not in sensitive else "y (target)", y, True))
    rows = {}
    for target, classes, is_y in targets:
        known = classes != UNLABELED if is_y else np.ones(len(classes), dtype=bool)
        found, indices, counts = np.unique(classes[known], return_inverse=True, return_counts=True)
        if len(found) < 2:
            raise ValueError(f"{target} must hold at least 2 classes, got {found[:5]!r}.")
        if counts.min() < FOLDS:
            raise ValueError(
                f"Class {found[counts.argmin()]} of {target} has {counts.min()} rows, but an "
                f"audit splits the rows of each into {FOLDS} parts."
            )
        for name, probe in PROBES.items():
            guesses = {
                table: _probabilities(probe(), X[known], indices) for table, X in tables.items()
            }
            rows[target, name, "accuracy"] = [
                counts.max() / counts.sum(),
                *[(p.argmax(axis=1) == indices).mean() for p in guesses.values()],
            ]
            rows[target, name, "auc"] = [0.5, *[_auc(indices, p) for p in guesses.values()]]
            for group, members in sensitive.items() if is_y else ():
                gaps = [parity_gap(p.argmax(axis=1), members[known]) for p in guesses.values()]
                rows[target, name, f"parity gap, {group}"] = [0.0, *gaps]
    index = pd.MultiIndex.from_tuples(rows, names=["target", "probe", "measure"])
    return pd.DataFrame([*rows.values()], index=index, columns=["nothing", *tables])


def parity_gap(predicted: NDArray[Any], groups: NDArray[Any]) -> float:
    """Largest difference between groups in how often a class is predicted."""
    classes = np.unique(predicted)[:, None]
    shares = [(predicted[groups == group] == classes).mean(axis=1) for group in np.unique(groups)]
    return float(np.ptp(shares, axis=0).max())


def _probabilities(probe: ClassifierMixin, X: Floats, classes: NDArray[np.intp]) -> Floats:
    """Probabilities of classes (n_samples, n_classes), of each row by a probe without it."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(probe, X, classes, cv=folds, method="predict_proba")


def _auc(classes: NDArray[np.intp], probabilities: Floats) -> float:
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    return float(roc_auc_score(classes, scores, multi_class="ovr"))
