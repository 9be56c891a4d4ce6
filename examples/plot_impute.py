"""
Fill the gaps
=============

This example hides cells of a table and fills them in several ways. The columns depend on each other
in a nonlinear way, so that a linear imputer cannot predict all cells. It also draws several
completed tables, whose spread shows how uncertain the missing cells are.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from skae import AutoencoderImputer, VariationalAutoencoder

# %%
# Two hidden numbers determine six columns. A fifth of the cells is then hidden.
rng = np.random.default_rng(0)
n = 1500
u, v = rng.uniform(-1, 1, (2, n))
X = np.column_stack([u, v, u**2, np.sin(3 * v), u * v, np.cos(3 * u)])
X += 0.05 * rng.normal(size=X.shape)
hidden = rng.random(X.shape) < 0.2
table = np.where(hidden, np.nan, X)

# %%
# All imputers are scikit-learn transformers. The error is that of the hidden cells, in standard
# deviations of the columns.
imputers = {
    "mean": SimpleImputer(),
    "linear regressions": IterativeImputer(random_state=0),
    "5 neighbors": KNNImputer(),
    "autoencoder": AutoencoderImputer(random_state=0),
}
errors = {}
for name, imputer in imputers.items():
    completed = imputer.fit_transform(table)
    errors[name] = np.sqrt(np.mean(((completed - X) / X.std(axis=0))[hidden] ** 2))
figure, ax = plt.subplots(figsize=(7, 2.5), layout="constrained")
ax.barh(list(errors), list(errors.values()))
ax.set(title="Error of hidden cells", xlabel="standard deviations of the columns")
ax.invert_yaxis()

# %%
# A single completed table does not show which of the filled cells are uncertain. The method
# ``impute`` of an autoencoder returns several completed tables if ``n_draws`` is set. In each of
# them, the missing cells are drawn given the observed cells of their row. The column ``u**2`` is
# shown where it was hidden. The intervals are wide where neither ``u`` nor ``cos(3 u)`` was
# observed. Each column has its own noise, because some are more predictable than others.
model = VariationalAutoencoder(
    3, noise="diagonal", weight_decay=1.0, max_epochs=200, random_state=0
).fit(table)
tables = np.stack(model.impute(table, n_draws=100, random_state=0))
rows = np.flatnonzero(hidden[:, 2])
low, middle, high = np.quantile(tables[:, rows, 2], [0.05, 0.5, 0.95], axis=0)
order = X[rows, 2].argsort()
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.errorbar(
    np.arange(len(rows)),
    middle[order],
    [(middle - low)[order], (high - middle)[order]],
    fmt=".",
    color="tab:blue",
    ecolor="lightgray",
    label="median and 90 % interval of the draws",
)
ax.plot(X[rows, 2][order], color="tab:orange", label="hidden cell")
ax.set(title="Draws of hidden cells", xlabel="rows, sorted by the hidden cell", ylabel="u**2")
ax.legend()
plt.show()
