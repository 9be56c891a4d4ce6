"""Audit of codes: how well probes predict sensitive columns and targets from codes.

Probes are classifiers that are trained on the codes of some rows and evaluated on other rows.
"""

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
"""Number of cross-validation folds. Each probe predicts only rows that it was not trained on."""

MIN_SAMPLES_LEAF = 5
"""Minimum number of rows in a leaf of the forest's trees. With smaller leaves, the probabilities of
the forest are too coarse."""

PROBES: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(min_samples_leaf=MIN_SAMPLES_LEAF, random_state=0),
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
}
"""Functions that make the probes, by name: "forest" can use any dependency between columns and
classes, "linear" only linear ones."""


def audit(tables: dict[str, Floats], sensitive: dict[str, NDArray[Any]], y: Any) -> pd.DataFrame:
    """Measure how well probes predict sensitive columns and a target from tables of rows.

    Rows whose class is missing in `y` are left out for this target. The folds and the forest have a
    fixed seed, so that results are reproducible.

    Parameters
    ----------
    tables : dict of ndarray of shape (n_samples, n_columns)
        Tables from which probes predict, by name. All have the same rows in the same order, and may
        have different numbers of columns.
    sensitive : dict of ndarray of shape (n_samples,)
        Classes that the tables should not reveal, by the name of the sensitive column.
    y : array-like of shape (n_samples,) or None
        Classes that the tables should predict. -1 marks missing classes, unless -1 and 1 are the
        only classes.

    Returns
    -------
    report : DataFrame
        A row for each target, probe and measure, which are the levels of the index. The target `y`
        is named "y", or "y (target)" if a sensitive column is named "y". Each table has a column of
        its name. The column "nothing" has the value that is possible without a table. The measures
        are:

        - "accuracy", which is the share of the most frequent class without a table.
        - "auc", the area under the ROC curve, which is 0.5 without a table. For more than two
          classes, it is the mean of the areas of each class against the others.
        - "parity gap, <name>", only for the target `y` and for each sensitive column: the largest
          difference between two of its groups in how often a class is predicted. It is 0 without a
          table.

    Raises
    ------
    ValueError
        If `y` is invalid, if a target has fewer than 2 classes, or if a class has fewer than
        `FOLDS` rows.
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
            raise ValueError(f"{target} must contain at least 2 classes, got {found[:5]!r}.")
        if counts.min() < FOLDS:
            raise ValueError(
                f"Each class of {target} must have at least {FOLDS} rows, because probes are "
                f"cross-validated, got {counts.min()} of class {found[counts.argmin()]}."
            )
        for name, probe in PROBES.items():
            predicted = {
                table: _probabilities(probe(), X[known], indices) for table, X in tables.items()
            }
            rows[target, name, "accuracy"] = [
                counts.max() / counts.sum(),
                *[(p.argmax(axis=1) == indices).mean() for p in predicted.values()],
            ]
            rows[target, name, "auc"] = [0.5, *[_auc(indices, p) for p in predicted.values()]]
            for group, members in sensitive.items() if is_y else ():
                gaps = [parity_gap(p.argmax(axis=1), members[known]) for p in predicted.values()]
                rows[target, name, f"parity gap, {group}"] = [0.0, *gaps]
    index = pd.MultiIndex.from_tuples(rows, names=["target", "probe", "measure"])
    return pd.DataFrame([*rows.values()], index=index, columns=["nothing", *tables])


def parity_gap(predicted: NDArray[Any], groups: NDArray[Any]) -> float:
    """Compute the largest difference between two groups in how often a class is predicted.

    `predicted` (n,) are predicted classes, and `groups` (n,) are the groups of the same rows.
    """
    classes = np.unique(predicted)[:, None]
    shares = [(predicted[groups == group] == classes).mean(axis=1) for group in np.unique(groups)]
    return float(np.ptp(shares, axis=0).max())


def _probabilities(probe: ClassifierMixin, X: Floats, classes: NDArray[np.intp]) -> Floats:
    """Predict probabilities (n_samples, n_classes) by cross-validation of a probe.

    `classes` (n_samples,) are the indices of the classes of the rows.
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(probe, X, classes, cv=folds, method="predict_proba")


def _auc(classes: NDArray[np.intp], probabilities: Floats) -> float:
    """Compute the AUC; for more than two classes, the mean of each class against the others."""
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    return float(roc_auc_score(classes, scores, multi_class="ovr"))
