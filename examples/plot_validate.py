"""
Validation: seven measures of an autoencoder
============================================

An autoencoder is trained to reconstruct rows, but reconstruction is not its purpose. This example
compares codes of several sizes by seven measures. It applies the same measures to a transformer
that reconstructs every training row without error, although its code is useless.
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
    """Return seven measures of a model that is fitted to the training rows."""
    errors = [
        ((model.inverse_transform(model.transform(rows)) - rows) ** 2).sum(axis=1).mean()
        for rows in (train, test)
    ]
    return {
        "training error": errors[0],
        "held-out error": errors[1],
        "held-out share of variance": metrics.explained_variance_ratio(model, test),
        "held-out nats per row": model.score(test) if hasattr(model, "score") else float("nan"),
        "digit predicted from code": metrics.probe_score(model, test, test_digit),
        "neighbors kept": metrics.trustworthiness(model, test),
        "same code from other rows": metrics.code_stability(
            model, train, over="folds", n_repeats=2
        ),
    }


# %%
# Both errors fall with every size, and the share of variance is the held-out error in another unit.
# From 16 to 32 components the errors fall by about two thirds or more, but hardly any other measure
# improves: the digit was predicted as well before, almost all neighbors were kept before, and other
# training rows already gave nearly the same codes up to rotation. The density of the autoencoder
# hardly rises there, while that of PCA does. Two components are the worst by every measure.
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
# training error is 0. The held-out error is not, but it does not show how bad the code is: the
# number explains more variance than eight components of PCA. The probe does: it predicts digits
# from the number no better than chance, one of ten. The code keeps fewer neighbors than the first
# component of PCA alone. Codes of transformers that are fitted to different training rows have
# nothing in common. Different seeds would not show this, because the transformer is not random.
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
print(f"same code from other seeds: {metrics.code_stability(NearestRow(), train):.2f}")
