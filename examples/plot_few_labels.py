"""
Semi-supervised classification: few labels, many rows
=====================================================

Scans are cheap, but a person has to label the digit on each of them. Here, only a few of 1,000 rows
of :func:`~sklearn.datasets.load_digits` are labeled. The others have the class -1, as in
scikit-learn's semi-supervised estimators. A logistic regression can only learn from the labeled
rows. An :class:`~skae.AutoencoderClassifier` learns from all rows what digits look like, and
estimates the classes of rows without one from similar rows. A
:class:`~skae.SemiSupervisedVariationalAutoencoder`, the model M2 of Kingma et al. (2014), treats
them as latent variables.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skae import AutoencoderClassifier, SemiSupervisedVariationalAutoencoder

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, train_size=1000, stratify=y, random_state=0
)
rank_in_class = pd.Series(y_train).groupby(y_train).cumcount().to_numpy()

# %%
# The table shows the accuracy on held-out rows for 2, 5 and 20 labels per class.
accuracy = {}
for n_labels in (2, 5, 20):
    is_labeled = rank_in_class < n_labels
    y_few = np.where(is_labeled, y_train, -1)
    logistic = LogisticRegression().fit(X_train[is_labeled], y_train[is_labeled])
    joint = AutoencoderClassifier(random_state=0).fit(X_train, y_few)
    m2 = SemiSupervisedVariationalAutoencoder(max_epochs=30, random_state=0).fit(X_train, y_few)
    accuracy[n_labels] = {
        "LogisticRegression": logistic.score(X_test, y_test),
        "AutoencoderClassifier": joint.score(X_test, y_test),
        "M2": m2.score(X_test, y_test),
    }
accuracy = pd.DataFrame(accuracy).T.rename_axis("labels per class")
print(accuracy.round(3))

axis = accuracy.plot(style="o-", figsize=(5, 3.2), logx=True, ylabel="accuracy on held-out rows")
axis.set_xticks(accuracy.index, accuracy.index)
axis.minorticks_off()
plt.tight_layout()
plt.show()

# %%
# The labeled rows are chosen only once here, so that small differences mean little. :doc:`/labels`
# compares more choices and more data sets.
#
# The classifier trains its network on the known and the estimated classes. Unlabeled rows help M2
# in another way, because it explains each row by a class and a style. The style is a code with a
# normal prior, and the loss penalizes the information that it contains. The loss of an unlabeled
# row is smallest if its class is that of similar rows, because its style then has less to describe.
# ``transform`` returns the style, followed by the probabilities of the classes. Each line of images
# below keeps the style of the scan on its left and combines it with each digit in turn. The model
# is the one that was fitted with 20 labels per class.
scans = X_test[[np.flatnonzero(y_test == digit)[1] for digit in (2, 3, 4, 6, 8)]]
styles = m2.transform(scans)[:, : m2.n_components_]
figure, axes = plt.subplots(len(scans), 11, figsize=(8, 3.8), layout="constrained")
for row, scan, style in zip(axes, scans, styles, strict=True):
    codes = np.hstack([np.tile(style, (10, 1)), np.eye(10)])
    for axis, image in zip(row, [scan, *m2.inverse_transform(codes)], strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
axes[0, 0].set_title("scan")
for axis, digit in zip(axes[0, 1:], m2.classes_, strict=True):
    axis.set_title(f"as a {digit}")
plt.show()
