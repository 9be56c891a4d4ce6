"""
A table as it is
================

This example fits an autoencoder to a data frame with numbers, whole numbers, categories, dates and
missing cells. Nothing is imputed, scaled or encoded before. It then looks at the codes, at
reconstructions and at rows that are unusual.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skae import Autoencoder, AutoencoderOutlierDetector

# %%
# The table describes flats. Size and age determine most of its columns.
rng = np.random.default_rng(0)
n = 1500
size, age = rng.gamma(8, 10, n), rng.uniform(0, 90, n)
old = 1 / (1 + np.exp((40 - age) / 8))
flats = pd.DataFrame(
    {
        "rent": (9 * size * (1.3 - 0.6 * old) * np.exp(0.1 * rng.normal(size=n))).round(),
        "size": size.round(1),
        "rooms": 1 + rng.poisson(size / 35),
        "heating": np.select([age > 70, age > 25], ["stove", "gas"], "heat pump"),
        "lift": rng.random(n) > 0.2 + 0.7 * old,
        "built": pd.Timestamp("2026-01-01") - pd.to_timedelta((365 * age).round(), "D"),
    }
)
for name, share in {"rent": 0.1, "heating": 0.2, "built": 0.3}.items():
    flats.loc[rng.random(n) < share, name] = None
flats.head()

# %%
# The fit reads all columns. A code consists of two numbers, which are the same for any library of
# data frames. The colors show that the codes are arranged by columns that the autoencoder has never
# seen as numbers, such as the heating.
model = Autoencoder(2, random_state=0).fit(flats)
codes = model.transform(flats)
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
dots = axes[0].scatter(*codes.T, c=flats["size"], s=8)
axes[0].set(title="Size of the flat", xlabel="component 0", ylabel="component 1")
figure.colorbar(dots, ax=axes[0])
for heating in ("heat pump", "gas", "stove"):
    axes[1].scatter(*codes[flats["heating"] == heating].T, s=8, label=heating)
axes[1].set(title="Heating", xlabel="component 0")
axes[1].legend()

# %%
# Reconstructions have the columns and the dtypes of the table. Whole numbers and dates are rounded.
model.reconstruct(flats).head()

# %%
# ``reconstruction_error`` can be computed for each column. It is a squared error for numbers and a
# deviance, in nats, for categories. It is NaN for missing cells.
errors = model.reconstruction_error(flats, per_feature=True)
pd.DataFrame(errors, columns=flats.columns)[["heating", "lift"]].describe().round(2)

# %%
# The outlier detector names the column that makes a row unusual, and what it expected instead.
wrong = flats.copy()
wrong.loc[3, "rent"] = 99_999
wrong.loc[0, "heating"] = "stove"
detector = AutoencoderOutlierDetector(random_state=0).fit(wrong)
explanation = detector.explain(wrong.loc[[3, 0]])
explanation["share"].round(2)

# %%
explanation["expected"]

# %%
# .. seealso:: :doc:`/mixed` explains how columns of each kind are modelled.
plt.show()
