"""
Outlier detection: which rows, and which cells
==============================================

Among the scanned zeros of :func:`~sklearn.datasets.load_digits` ten other digits got mixed in, and
nobody has labelled them. An :class:`~skae.AutoencoderOutlierDetector` learns what most rows have in
common, scores each row by how little that explains it, and says which cells it did not expect.
:class:`~sklearn.ensemble.IsolationForest` is asked the same.
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
# Find. The best threshold is not known: average precision judges the order of the rows, of which
# the ten strangers should be the first.
detectors = {
    "AutoencoderOutlierDetector": AutoencoderOutlierDetector(random_state=0),
    "IsolationForest": IsolationForest(random_state=0),
}
for name, detector in detectors.items():
    found = detector.fit_predict(X) == -1
    precision = average_precision_score(is_other, -detector.score_samples(X))
    print(
        f"{name}: average precision {precision:.2f}; {found.sum()} of {len(X)} rows are called "
        f"outliers, {(found & is_other).sum()} of the ten strangers among them"
    )

# %%
# Threshold. How many false alarms are to be expected? Rows set aside in ``fit`` answer: of normal
# rows, at most 5 % have a p-value of at most .05, on average over what is set aside.
calibrated = AutoencoderOutlierDetector(calibration_fraction=0.4, random_state=0)
zeros = X[~is_other]
calibrated.fit(zeros[::2])
p = calibrated.p_values(zeros[1::2])
print(f"false alarms among {len(p)} new zeros: {(p <= 0.05).mean():.1%}")
print(f"p-values of the ten strangers: at most {calibrated.p_values(X[is_other]).max():.3f}")

# %%
# Explain. ``deviation`` is how far each pixel is from ``expected``, in robust standard deviations:
# red is ink where none was expected, blue is ink that is missing. A zero has no ink in the middle.
# Last, the rows that are strangest to the isolation forest, which gives no reasons.
detector = detectors["AutoencoderOutlierDetector"]
strangest = X.iloc[np.argsort(detector.score_samples(X))[:8]]
why = detector.explain(strangest)
pictures = {
    "row": strangest,
    "expected": why["expected"],
    "deviation": why["deviation"],
    "forest's": X.iloc[np.argsort(detectors["IsolationForest"].score_samples(X))[:8]],
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
for row, shown in ((axes[0], strangest), (axes[3], pictures["forest's"])):
    for axis, index in zip(row, shown.index, strict=True):
        axis.set_title(f"a {digits.target[index]}")
plt.show()

# %%
# The same as a table: the three pixels that have the largest shares in the score of the strangest
# row, what they hold and what was expected.
first = why.iloc[0]
largest = first["share"].nlargest(3).index
print(
    why.iloc[:1]
    .stack(0, future_stack=True)
    .droplevel(0)[largest]
    .T.assign(value=strangest.iloc[0][largest])
    .round(2)
)
