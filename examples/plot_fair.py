"""
Fair autoencoder: codes that hide a sensitive column
====================================================

The code of a :class:`~skae.FairAutoencoder` is trained to hide sensitive columns and to keep as
much as possible of the others. Adversaries, small networks that are trained at the same time,
predict the sensitive columns from the code, and ``leak_weight`` is the weight of a penalty on what
they can predict. This example plots the resulting trade-off between hiding a sensitive column and
predicting a target, on a generated table.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from skae import FairAutoencoder

# %%
# The table has thirteen columns. Four are combinations of two latent variables, the traits. Four
# are combinations of two other traits, on a larger scale in one group than in the other. Four are
# noise with a different mean in each group. The last column is the group, which is sensitive. The
# target depends on all four traits and, unfairly, on the group.

rng = np.random.default_rng(0)
n = 1500
group, traits = rng.integers(2, size=n), rng.normal(size=(n, 4))
spread = np.where(group == 1, 1.4, 0.5)[:, None]
cells = [
    traits[:, :2] @ rng.normal(size=(2, 4)),
    spread * (traits[:, 2:] @ rng.normal(size=(2, 4))),
    0.8 * group[:, None] * rng.choice([-1, 1], 4) + rng.normal(size=(n, 4)),
]
X = np.column_stack([np.hstack(cells) + 0.3 * rng.normal(size=(n, 12)), group])
y = (traits.sum(axis=1) + 2 * group + rng.normal(size=n) / 2 > 1).astype(int)
train, test = slice(0, 1000), slice(1000, n)


def evaluate(Z: np.ndarray) -> tuple[float, float, float]:
    """Return a forest's AUC for the group, and accuracy and parity gap of a linear model of y."""
    forest = RandomForestClassifier(min_samples_leaf=5, random_state=0).fit(Z[train], group[train])
    auc = roc_auc_score(group[test], forest.predict_proba(Z[test])[:, 1])
    predicted = LogisticRegression(max_iter=1000).fit(Z[train], y[train]).predict(Z[test])
    rates = [predicted[group[test] == g].mean() for g in (0, 1)]
    return float(auc), float((predicted == y[test]).mean()), float(np.ptp(rates))


# %%
# A random forest predicts the group from the codes, and a logistic regression predicts the target.
# Both are fitted to the codes of the training rows and evaluated on the codes of held-out rows. The
# parity gap is the difference between the groups in the share of rows for which the target is
# predicted to be 1. The curve "code, with y" shows codes that were also trained to predict the
# target. The star shows the same measures for the twelve original columns without the group.

weights = (0, 0.3, 1)
curves: dict[str, list[tuple[float, float, float]]] = {"without y": [], "with y": []}
for name, curve in curves.items():
    target = y[train] if name == "with y" else None
    for weight in weights:
        fair = FairAutoencoder(
            sensitive=-1, leak_weight=weight, max_epochs=12, early_stopping=False, random_state=0
        )
        curve.append(evaluate(fair.fit(X[train], target).transform(X)))

raw = evaluate(X[:, :-1])
print(f"original rows: AUC {raw[0]:.2f}, accuracy {raw[1]:.2f}, parity gap {raw[2]:.2f}")
figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharex=True)
for name, curve in curves.items():
    aucs, accuracies, gaps = zip(*curve, strict=True)
    for panel, values in zip(panels, (accuracies, gaps), strict=True):
        panel.plot(aucs, values, "o-", label=f"code, {name}")
    for weight, point in zip(weights, zip(aucs, accuracies, strict=True), strict=True):
        panels[0].annotate(f"{weight:g}", point, (3, 3), textcoords="offset points", fontsize=7)
for panel, value in zip(panels, raw[1:], strict=True):
    panel.plot(raw[0], value, "k*", label="original rows")
panels[0].axhline(
    max(y[test].mean(), 1 - y[test].mean()), color="gray", ls=":", label="majority class"
)
panels[0].set(xlabel="AUC of a forest that predicts the group", ylabel="accuracy for y")
panels[1].set(xlabel="AUC of a forest that predicts the group", ylabel="parity gap")
panels[0].legend(fontsize=8)
figure.suptitle("Each point is one leak_weight; codes further left hide more")
plt.show()

# %%
# ``audit`` computes similar measures by cross-validation, for rows that contain the sensitive
# columns. Here it is called for the last model, with ``leak_weight=1`` and trained with y. The
# target "12" is the group, which is named by its index. The columns are the values for predictions
# without data ("nothing"), from the other columns ("rows") and from the code ("code").

print(fair.audit(X[test], y[test]).round(2).to_string())
