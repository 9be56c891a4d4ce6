"""Tables, hidden cells, and simple models that mixed.py compares with skae."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import Autoencoder, AutoencoderImputer

NUMERIC_TABLES = ("concrete", "elevators", "energy", "parkinsons", "protein", "wine")


def read_frame(folder, name, n_rows=None, seed=0):
    """Read a raw table, with its rows in random order."""
    dates = ["pickup", "dropoff"] if name == "taxis" else []
    frame = pd.read_csv(Path(folder) / "mixed" / f"{name}.csv.gz", parse_dates=dates)
    return frame.sample(frac=1, random_state=seed, ignore_index=True)[:n_rows]


def read_numbers(folder, name):
    """Read 1,500 random rows of a table of numbers, standardized, without constant columns."""
    X = np.load(Path(folder) / "tabular" / f"{name}.npz", allow_pickle=False)["X"].astype(float)
    X = X[np.random.default_rng(0).permutation(len(X))[:1500]]
    return StandardScaler().fit_transform(X[:, np.ptp(X, axis=0) > 0])


def number_names(frame):
    return list(frame.select_dtypes("number"))


def category_names(frame):
    return list(frame.select_dtypes(exclude=["number", "datetime"]))


def as_categories(frame):
    """Return the frame with the dtype for which scikit-learn's trees handle categories."""
    return frame.astype(dict.fromkeys(category_names(frame), "category"))


def n_encoded(frame):
    """Return the number of columns after one-hot encoding."""
    names = category_names(frame)
    return frame.shape[1] - len(names) + int(frame[names].nunique().sum())


# ---------------------------------------------------------------------------------- hidden cells


def uniform(X, rng):
    return np.full(X.shape, 0.5)


def given_another(X, rng):
    """The other column is one of a random half of the columns, which remains complete."""
    columns = rng.permutation(X.shape[1])
    complete, others = np.array_split(columns, 2)
    chances = np.zeros(X.shape)
    chances[:, others] = (rankdata(X, axis=0) / len(X))[:, rng.choice(complete, len(others))]
    return chances


def given_itself(X, rng):
    return rankdata(X, axis=0) / len(X)


PATTERNS = {
    "completely at random": uniform,
    "at random": given_another,
    "not at random": given_itself,
}
"""Chances of a cell to be hidden, relative to each other. Their mean is 1/2 in each column that
has hidden cells."""


def hide(X, pattern, share=0.2, seed=0):
    """Return which cells are hidden, a share of the cells of each column with hidden cells."""
    rng = np.random.default_rng(seed)
    return rng.random(X.shape) < 2 * share * PATTERNS[pattern](X, rng)


# -------------------------------------------------------------------- imputation: tables of numbers


def fill_by_normal(X, n_iter=50):
    """Fill cells with their means given the observed ones under a normal distribution.

    Its parameters are estimated by expectation maximization.
    """
    known = ~np.isnan(X)
    mean, covariance = np.nanmean(X, axis=0), np.diag(np.nanvar(X, axis=0))
    eye = np.eye(X.shape[1])
    both_known = known[:, :, None] & known[:, None, :]
    for _ in range(n_iter):
        # Missing cells are replaced by independent ones, so that all rows are solved at once.
        cross = np.where(known[:, :, None], covariance, 0)
        gain = np.linalg.solve(np.where(both_known, covariance, eye), cross)
        rest = np.where(known, X - mean, 0)
        filled = np.where(known, X, mean + (rest[:, None] @ gain)[:, 0])
        spread = np.where(known[:, :, None] | known[:, None], 0, covariance - cross.mT @ gain)
        mean = filled.mean(axis=0)
        covariance = np.cov(filled.T, bias=True) + spread.mean(axis=0) + 1e-6 * eye
    return filled


def chained(regressor, n_rounds=10):
    return IterativeImputer(regressor, max_iter=n_rounds, random_state=0).fit_transform


def fill_by_trees(X):
    return chained(ExtraTreesRegressor(20, random_state=0), n_rounds=5)(X)


def fill_by_impute(X):
    return Autoencoder(random_state=0).fit(X).impute(X)


def fill_by_imputer(X):
    return AutoencoderImputer(random_state=0).fit(X).transform(X)


NUMERIC_METHODS = {
    "mean": SimpleImputer().fit_transform,
    "KNNImputer": KNNImputer(n_neighbors=5).fit_transform,
    "IterativeImputer, BayesianRidge": chained(BayesianRidge()),
    "EM of one Gaussian": fill_by_normal,
    "IterativeImputer, ExtraTrees": fill_by_trees,
    "Autoencoder().impute": fill_by_impute,
    "AutoencoderImputer": fill_by_imputer,
}

# --------------------------------------------------------------------- imputation: mixed tables


def fill_by_location(frame):
    """Fill cells with the mean or the most frequent category."""
    return frame.fillna(
        {
            name: column.mean() if name in number_names(frame) else column.mode()[0]
            for name, column in frame.items()
        }
    )


def fill_by_ridge(frame):
    """Fill numbers by regressions on all columns, and categories with the most frequent one.

    Categories are one-hot encoded, with means in missing cells.
    """
    names, categories = number_names(frame), frame[category_names(frame)]
    onehots = {
        name: pd.get_dummies(column, dtype=float).where(column.notna(), np.nan)
        for name, column in categories.items()
    }
    onehots = pd.concat(onehots, axis=1)
    table = np.hstack([frame[names], onehots.fillna(onehots.mean())])
    filled = chained(BayesianRidge(), n_rounds=3)(StandardScaler().fit_transform(table))
    filled = pd.DataFrame(filled[:, : len(names)], frame.index, names)
    filled = filled * frame[names].std(ddof=0) + frame[names].mean()
    return fill_by_location(frame).assign(**filled)


def fill_by_boosting(frame):
    """Fill each column by boosted trees on the others, which handle missing cells."""
    table, filled = as_categories(frame), frame.copy()
    for name in frame:
        if name in number_names(frame):
            model = HistGradientBoostingRegressor(max_iter=60, random_state=0)
        else:
            model = HistGradientBoostingClassifier(
                max_iter=60, learning_rate=0.05, max_leaf_nodes=8, random_state=0
            )
        known, others = frame[name].notna(), table.drop(columns=name)
        model.fit(others[known], frame[name][known])
        filled.loc[~known, name] = model.predict(others[~known])
    return filled


MIXED_METHODS = {
    "mean or most frequent": fill_by_location,
    "BayesianRidge on one-hots": fill_by_ridge,
    "HistGradientBoosting by column": fill_by_boosting,
    "Autoencoder().impute": fill_by_impute,
    "AutoencoderImputer": fill_by_imputer,
}

# ------------------------------------------------------------------------------------------ codes


class OneHotPCA(BaseEstimator):
    """PCA of standardized numbers and of one-hot encoded categories.

    Missing numbers are replaced by the mean. Missing categories are a level of their own.
    """

    def __init__(self, n_components):
        self.n_components = n_components

    def fit(self, X):
        names = category_names(X)
        self.n_numbers_, self.names_ = X.shape[1] - len(names), names
        self.onehot_ = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        self.encoder_ = make_column_transformer(
            (numbers, [name for name in X if name not in names]), (self.onehot_, names)
        )
        self.pca_ = PCA(self.n_components, random_state=0)
        self.pca_.fit(self.encoder_.fit_transform(self._without_dates(X)))
        return self

    def transform(self, X):
        return self.pca_.transform(self.encoder_.transform(self._without_dates(X)))

    def score_samples(self, X):
        return self.pca_.score_samples(self.encoder_.transform(self._without_dates(X)))

    def reconstruct(self, X):
        """Return the categories with the largest reconstructed one-hots."""
        onehots = self.pca_.inverse_transform(self.transform(X))[:, self.n_numbers_ :]
        levels = self.encoder_.named_transformers_["onehotencoder"].categories_
        blocks = np.split(onehots, np.cumsum([len(own) for own in levels])[:-1], axis=1)
        return pd.DataFrame(
            {
                name: own[~pd.isna(own)][block[:, ~pd.isna(own)].argmax(axis=1)]
                for name, own, block in zip(self.names_, levels, blocks, strict=True)
            },
            index=X.index,
        )

    def _without_dates(self, X):
        return X.astype(dict.fromkeys(X.select_dtypes("datetime"), "int64"))


def category_accuracy(X, result):
    """Return the share of observed categories that a result has in common with X."""
    names = category_names(X)
    same, known = (X[names] == result[names]).to_numpy(), X[names].notna().to_numpy()
    return same[known].mean()
