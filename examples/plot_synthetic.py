"""
Synthetic rows
==============

This example draws new rows of a table with numbers and categories from a variational autoencoder.
It compares them with real rows: their distributions, a classifier that is trained on them, and
their distances to the training rows.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from skae import VariationalAutoencoder

# %%
# The table has ten columns of patients with diabetes. Sex and the later course of the disease are
# categories.
data = load_diabetes(as_frame=True, scaled=False)
table = data.data.assign(
    sex=np.where(data.data["sex"] == 1, "male", "female"),
    worse=np.where(data.target > data.target.median(), "yes", "no"),
).astype({"age": int})
train, test = table[:300], table[300:]
model = VariationalAutoencoder(4, random_state=0).fit(train)
drawn = model.sample(len(train), random_state=0)
drawn.head()

# %%
# The histograms of the columns are those of the training rows.
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for ax, name in zip(axes, ("bmi", "s5", "age"), strict=True):
    ax.hist([train[name], drawn[name]], bins=15, label=["training rows", "drawn rows"])
    ax.set(title=name, yticks=[])
axes[0].legend()

# %%
# Means of columns differ between the two classes in the same way.
means = {"training rows": train, "drawn rows": drawn}
pd.concat({name: t.groupby("worse")[["bmi", "bp", "s5"]].mean() for name, t in means.items()})


# %%
# A classifier that is trained on drawn rows is tested on real rows. If it is nearly as good as one
# that is trained on real rows, the relations between the columns are those of the real table.
def auc(rows: pd.DataFrame) -> float:
    """Return the AUC on held-out rows of a classifier that is trained on `rows`."""
    names = table.columns.drop(["worse", "sex"])
    classifier = HistGradientBoostingClassifier(max_iter=50, max_depth=2, random_state=0)
    classifier.fit(rows[names], rows["worse"])
    chances = classifier.predict_proba(test[names])[:, 1]
    return float(roc_auc_score(test["worse"] == "yes", chances))


print(f"AUC after training on real rows: {auc(train):.2f}, on drawn rows: {auc(drawn):.2f}")

# %%
# Drawn rows should not be copies of training rows. Their distances to the nearest training row are
# compared with those of held-out rows.
numbers = train.select_dtypes("number").columns
scale = train[numbers].std()
nearest = NearestNeighbors(n_neighbors=1).fit(train[numbers] / scale)
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for name, rows in {"held-out rows": test, "drawn rows": drawn}.items():
    distance = nearest.kneighbors(rows[numbers] / scale)[0].ravel()
    ax.hist(distance, bins=20, density=True, alpha=0.6, label=name)
ax.set(title="Distance to the nearest training row", yticks=[])
ax.legend()
plt.show()
