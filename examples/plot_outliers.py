"""
Outlier detection: which rows, and which cells
==============================================

Ten scans of other digits are mixed into the zeros of :func:`~sklearn.datasets.load_digits`, and no
row is labeled. An :class:`~skae.AutoencoderOutlierDetector` learns what most rows have in common.
It scores each row by how far its code and its residual are from those of most rows, and shows which
cells are unexpected.
:class:`~sklearn.ensemble.IsolationForest` is fitted to the same rows for comparison.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score

from skae import AutoencoderOutlierDetector

digits = load_digits(as_frame=True)
others = digits.target[digits.target != 0].sample(10, random_state=0).index
X = digits.data.loc[digits.target.index[digits.target == 0].union(others)]
is_other = X.index.isin(others)

# %%
# Detection. The best threshold is not known, so the ranking of the rows is evaluated by average
# precision: the ten other digits should come first. On these images, the isolation forest has a
# slightly larger average precision. Both detectors also detect a few zeros.
detectors = {
    "AutoencoderOutlierDetector": AutoencoderOutlierDetector(random_state=0),
    "IsolationForest": IsolationForest(random_state=0),
}
for name, detector in detectors.items():
    is_outlier = detector.fit_predict(X) == -1
    precision = average_precision_score(is_other, -detector.score_samples(X))
    print(
        f"{name}: average precision {precision:.2f}; {is_outlier.sum()} of {len(X)} rows are "
        f"detected, including {(is_outlier & is_other).sum()} of the ten other digits"
    )

# %%
# Threshold. A threshold on p-values limits the rate of false alarms. ``fit`` sets rows aside, and
# ``p_values`` compares the scores of new rows with the scores of the rows set aside. At most 5 % of
# new normal rows have a p-value of at most .05, on average over the choice of the rows that are set
# aside.
calibrated = AutoencoderOutlierDetector(calibration_fraction=0.4, random_state=0)
zeros = X[~is_other]
calibrated.fit(zeros[::2])
p = calibrated.p_values(zeros[1::2])
print(f"false alarms among {len(p)} new zeros: {(p <= 0.05).mean():.1%}")
print(f"p-values of the ten other digits: at most {calibrated.p_values(X[is_other]).max():.3f}")

# %%
# Explanation. ``deviation`` is the difference between each pixel and its ``expected`` value, in
# robust standard deviations. Red is ink where none is expected, for example in the middle of a
# zero, and blue is the absence of expected ink. The last line shows the rows that are most unusual
# to the isolation forest, which does not explain its scores.
detector = detectors["AutoencoderOutlierDetector"]
unusual = X.iloc[np.argsort(detector.score_samples(X))[:8]]
explanation = detector.explain(unusual)
pictures = {
    "row": unusual,
    "expected": explanation["expected"],
    "deviation": explanation["deviation"],
    "forest": X.iloc[np.argsort(detectors["IsolationForest"].score_samples(X))[:8]],
}
figure, axes = plt.subplots(4, 8, figsize=(9, 5.2), layout="constrained")
for row, (name, cells) in zip(axes, pictures.items(), strict=True):
    style = (
        {"cmap": "RdBu_r", "vmin": -10, "vmax": 10}
        if name == "deviation"
        else {"cmap": "gray_r", "vmin": 0, "vmax": 16}
    )
    for axis, image in zip(row, cells.to_numpy(), strict=True):
        axis.imshow(image.reshape(8, 8), **style)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
for row, shown in ((axes[0], unusual), (axes[3], pictures["forest"])):
    for axis, index in zip(row, shown.index, strict=True):
        axis.set_title(f"a {digits.target[index]}")
plt.show()

# %%
# The table shows the same explanation for the three pixels of the most unusual row that have the
# largest ``share``: the contribution of a pixel, which increases with its absolute deviation,
# divided by the sum of the contributions of all pixels of the row. ``value`` is the pixel itself.
first = explanation.iloc[0]
largest = first["share"].nlargest(3).index
print(
    explanation.iloc[:1]
    .stack(0, future_stack=True)
    .droplevel(0)[largest]
    .T.assign(value=unusual.iloc[0][largest])
    .round(2)
)
