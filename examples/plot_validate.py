"""
Validation: seven measures of an autoencoder
============================================

An autoencoder is trained to reconstruct rows, but the purpose of its codes is usually another one,
such as classification. This example compares codes with different numbers of components by seven
measures. It then computes them for a transformer that reconstructs every training row without
error, although its code is useless.
"""

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skae import Autoencoder, metrics

X, digit = load_digits(return_X_y=True)
train, test, _, test_digit = train_test_split(X / 16, digit, test_size=0.4, random_state=0)


def evaluate(model):
    """Return seven measures of a model that is fitted to the training rows.

    The log-density is NaN if the model has none.
    """
    errors = [
        ((model.inverse_transform(model.transform(rows)) - rows) ** 2).sum(axis=1).mean()
        for rows in (train, test)
    ]
    return {
        "training error": errors[0],
        "held-out error": errors[1],
        "held-out share of variance": metrics.explained_variance_ratio(model, test),
        "held-out log-density": model.score(test) if hasattr(model, "score") else float("nan"),
        "accuracy of a probe": metrics.probe_score(model, test, test_digit),
        "trustworthiness": metrics.trustworthiness(model, test),
        "stability over folds": metrics.code_stability(model, train, over="folds", n_repeats=2),
    }


# %%
# The errors are mean squared errors per row, and the log-density is in nats per row. The share of
# variance is computed from the squared error, so that it contains the same information as the
# held-out error. ``probe_score`` is the accuracy of a linear classifier, the probe, that predicts
# the digit from the code. ``trustworthiness`` is 1 if the nearest neighbors among the codes are
# also the nearest neighbors among the rows. ``code_stability`` is 1 if fits to different training
# rows give the same codes up to a rotation, a translation and a scale.
#
# Both errors decrease with every increase of the number of components. From 16 to 32 components,
# they decrease by about two thirds or more, and PCA's log-density rises by more than ten nats. The
# other measures, apart from the share of variance, hardly change: the log-density of the
# autoencoder, the accuracy of the probe, the trustworthiness and the stability. Two components are
# the worst by every measure except for one: the stability of the autoencoder is about the same with
# two and with eight components.
sizes = [2, 8, 16, 32]
autoencoders = [Autoencoder(size, max_epochs=10, random_state=0) for size in sizes]
pcas = [PCA(size, random_state=0) for size in sizes]
tables = {
    name: pd.DataFrame([evaluate(model.fit(train)) for model in models], index=sizes)
    for name, models in {"Autoencoder": autoencoders, "PCA": pcas}.items()
}
print(pd.concat(tables).T.round(2).to_string())

figure, axes = plt.subplots(2, 4, figsize=(12, 5.5), layout="constrained")
for panel, measure in zip(axes.flat, tables["PCA"], strict=False):
    for name, table in tables.items():
        panel.plot([str(size) for size in sizes], table[measure], "o-", label=name)
    panel.set(title=measure, xlabel="components")
axes[0, 0].legend()
axes[-1, -1].axis("off")
plt.show()


# %%
# The code of the transformer below is a single number, the index of the nearest training row. Its
# training error is 0. The held-out error does not show that the code is useless, because the code
# explains more of the variance than eight components of PCA. Other measures show it:
#
# - The probe predicts the digit no better than chance, which is right in one of ten cases.
# - The trustworthiness is less than that of a single component of PCA.
# - The stability over folds is 0: codes of transformers that are fitted to different training rows
#   have nothing in common.
#
# Fits with different seeds would not show this, because the transformer has no random numbers.
class NearestRow(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.rows_ = X
        self.nearest_ = NearestNeighbors(n_neighbors=1).fit(X)
        return self

    def transform(self, X):
        return self.nearest_.kneighbors(X, return_distance=False)

    def inverse_transform(self, codes):
        return self.rows_[codes[:, 0]]


results = {
    "NearestRow": evaluate(NearestRow().fit(train)),
    "PCA(1)": evaluate(PCA(1).fit(train)),
    "PCA(8)": tables["PCA"].loc[8],
}
print(pd.DataFrame(results).round(2))
print(f"stability over seeds: {metrics.code_stability(NearestRow(), train):.2f}")
