"""Tables of numbers with a target, and scores of models for them, that features.py reads."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold

MAX_ROWS = 2000

LOADERS = {
    "digits": load_digits,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "iris": load_iris,
    "diabetes": load_diabetes,
}
REGRESSIONS = ("concrete", "elevators", "energy", "parkinsons", "protein", "wine quality")
DETECTIONS = (
    *("PageBlocks", "WDBC", "Wilt", "annthyroid", "breastw", "campaign", "fault", "letter"),
    *("magic.gamma", "vertebral", "yeast", "pendigits"),
)
NAMES = (*LOADERS, *REGRESSIONS, *DETECTIONS)


class LabeledTable(NamedTuple):
    """Rows, their targets, and whether the targets are numbers."""

    X: np.ndarray
    y: np.ndarray
    is_regression: bool

    def folds(self, n=5):
        """Return pairs of training and test rows."""
        kind = KFold if self.is_regression else StratifiedKFold
        return kind(n, shuffle=True, random_state=0).split(self.X, self.y)

    def linear_model(self):
        """Return the linear model of the comparisons."""
        if self.is_regression:
            return RidgeCV()
        return LogisticRegression(C=0.3, class_weight="balanced", max_iter=1000)

    def score(self, model, X, y):
        """Compute R² or the balanced accuracy of a fitted model."""
        return (r2_score if self.is_regression else balanced_accuracy_score)(y, model.predict(X))


def read_labeled(folder, name):
    """Read a table, or 2,000 random rows of it if it has more."""
    if name in LOADERS:
        X, y = LOADERS[name](return_X_y=True)
    elif name in REGRESSIONS:
        path = Path(folder) / "tabular" / f"{name.removesuffix(' quality')}.npz"
        X, y = np.split(np.load(path, allow_pickle=False)["X"].astype(float), [-1], axis=1)
        y = y[:, 0]
    else:
        content = np.load(Path(folder) / "outliers" / f"{name}.npz", allow_pickle=False)
        X, y = content["X"].astype(float), content["y"].astype(int)
    if len(X) > MAX_ROWS:
        rows = np.random.default_rng(0).permutation(len(X))[:MAX_ROWS]
        X, y = X[rows], y[rows]
    return LabeledTable(X, y, name == "diabetes" or name in REGRESSIONS)
