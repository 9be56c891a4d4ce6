"""
Fair autoencoder: codes that hide a sensitive column
====================================================

The code of a :class:`~skae.FairAutoencoder` is to say nothing of sensitive columns and much of the
others. ``leak_weight`` sets the price of what a panel of judges can tell; this is the curve that it
moves along, on a made-up table of which the truth is known.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from skae import FairAutoencoder

# %%
# Of twelve columns, four hold what two traits say, four what two other traits say, but larger in
# one group than in the other, and four are noise that is centred elsewhere in each group. The group
# is the sensitive column. The target depends on all four traits, and, unfairly, on the group.

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


def probed(Z: np.ndarray) -> tuple[float, float, float]:
    """A forest's AUC for the group; logistic regression's accuracy for y and its parity gap."""
    forest = RandomForestClassifier(min_samples_leaf=5, random_state=0).fit(Z[train], group[train])
    leak = roc_auc_score(group[test], forest.predict_proba(Z[test])[:, 1])
    says = LogisticRegression(max_iter=1000).fit(Z[train], y[train]).predict(Z[test])
    shares = [says[group[test] == g].mean() for g in (0, 1)]
    return float(leak), float((says == y[test]).mean()), float(np.ptp(shares))


# %%
# Codes are those of rows that training has not seen, and so are the probes' rows. "y given" are
# codes that were trained for the target, too.

weights = (0, 0.3, 1)
curves: dict[str, list[tuple[float, float, float]]] = {"rows alone": [], "y given": []}
for name, curve in curves.items():
    target = y[train] if name == "y given" else None
    for weight in weights:
        fair = FairAutoencoder(
            sensitive=-1, leak_weight=weight, max_epochs=12, early_stopping=False, random_state=0
        )
        curve.append(probed(fair.fit(X[train], target).transform(X)))

raw = probed(X[:, :-1])
print(f"rows: AUC {raw[0]:.2f}, accuracy {raw[1]:.2f}, parity gap {raw[2]:.2f}")
figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharex=True)
for name, curve in curves.items():
    leaks, accuracies, gaps = zip(*curve, strict=True)
    for panel, values in zip(panels, (accuracies, gaps), strict=True):
        panel.plot(leaks, values, "o-", label=f"code, {name}")
    for weight, place in zip(weights, zip(leaks, accuracies, strict=True), strict=True):
        panels[0].annotate(f"{weight:g}", place, (3, 3), textcoords="offset points", fontsize=7)
for panel, value in zip(panels, raw[1:], strict=True):
    panel.plot(raw[0], value, "k*", label="rows as they are")
panels[0].axhline(max(y[test].mean(), 1 - y[test].mean()), color="gray", ls=":", label="nothing")
panels[0].set(xlabel="group told by a forest (AUC)", ylabel="accuracy for y")
panels[1].set(xlabel="group told by a forest (AUC)", ylabel="parity gap")
panels[0].legend(fontsize=8)
figure.suptitle("Each point a leak_weight: to the left hides more")
plt.show()

# %%
# ``audit`` makes the same report for any table, by cross-validation; here of the last code.

print(fair.audit(X[test], y[test]).round(2).to_string())
