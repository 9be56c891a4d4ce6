"""
Multi-label classification: one encoder for many labels
=======================================================

Several labels of the same rows can share one code. An :class:`~skae.AutoencoderClassifier` trains
one code for all labels, and further labels can be added later without training the code again. The
rows are scans of digits, and each label states whether the digit has a certain property. Six labels
are observed for about a fifth of the training rows each. The seventh is added later, from 60 rows.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from skae import AutoencoderClassifier

X, digit = load_digits(return_X_y=True, as_frame=True)
Y = pd.DataFrame(
    {
        "is even": digit % 2 == 0,
        "is above 4": digit > 4,
        "is prime": digit.isin([2, 3, 5, 7]),
        "is a multiple of 3": digit % 3 == 0,
        "is a power of 2": digit.isin([1, 2, 4, 8]),
        "is drawn straight": digit.isin([1, 4, 7]),
        "has a closed loop": digit.isin([0, 6, 8, 9]),
    }
).astype(float)
X_train, X_test, Y_complete, Y_test = train_test_split(X / 16, Y, train_size=800, random_state=0)
is_known = np.random.default_rng(0).random(Y_complete.shape) < 0.2
Y_train = Y_complete.where(is_known)
print(Y_train.head().T)

# %%
# A missing label is NaN. The first six labels train the encoder.
added = "has a closed loop"
classifier = AutoencoderClassifier(random_state=0).fit(X_train, Y_train.drop(columns=added))
before = classifier.predict_proba(X_test)

# %%
# The label for closed loops is added now, with observed values for 60 rows. The network is not
# trained again: the new label is predicted from the codes by a logistic regression, and the
# predictions of the other labels do not change.
Y_train[added] = Y_complete[added].iloc[:60]
classifier.add_label(X_train.iloc[:60], Y_train[added].iloc[:60], name=added)
probability = pd.DataFrame(classifier.predict_proba(X_test), columns=classifier.label_names_)
print(
    "predictions of the other labels are unchanged:",
    (probability.iloc[:, :-1].to_numpy() == before).all(),
)

# %%
# For comparison, separate classifiers are fitted to each label: a logistic regression on the
# pixels, another on principal components, as many as the shared code has components, and a support
# vector machine on the pixels. The table and the figure show the average precision of each label on
# held-out rows.
pca = PCA(classifier.n_components_).fit(X_train)
single = {
    "logistic": LogisticRegression(),
    "PCA, logistic": make_pipeline(FrozenEstimator(pca), LogisticRegression()),
    "SVC": SVC(),
}
precision = pd.DataFrame(
    {
        name: {
            label: average_precision_score(
                Y_test[label],
                model.fit(X_train[known], Y_train.loc[known, label]).decision_function(X_test),
            )
            for label, known in Y_train.notna().items()
        }
        for name, model in single.items()
    }
)
precision["shared code"] = average_precision_score(
    Y_test[probability.columns], probability, average=None
)
print(precision.round(3))

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
rows = precision.rename({added: f"{added} (added)"})
axis.plot(rows, rows.index, "o", label=rows.columns)
axis.invert_yaxis()
axis.set_xlabel("average precision on held-out rows")
figure.legend(loc="outside right")
plt.show()

# %%
# The classifier of the added label was fitted to 60 rows, and the code was not trained for this
# label. The seven labels are suitable for a shared code, because all of them depend on the digit. A
# shared code can improve the predictions less if the labels have little in common.
