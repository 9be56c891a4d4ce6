"""
Multi-label classification: one encoder for many labels
=======================================================

Several yes/no questions about the same rows can share what they need: an
:class:`~skae.AutoencoderClassifier` trains one code for all of them, and one more question is
answered later from the code as it is. The rows are scans of digits. Each question is answered for
every fifth row only.
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
questions = pd.DataFrame(
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
X_train, X_test, all_answers, truth = train_test_split(
    X / 16, questions, train_size=800, random_state=0
)
is_asked = np.random.default_rng(0).random(all_answers.shape) < 0.2
answers = all_answers.where(is_asked)
print(answers.head().T)

# %%
# A cell that is NaN is an answer that nobody gave. The first six questions train the encoder.
added = "has a closed loop"
classifier = AutoencoderClassifier(random_state=0).fit(X_train, answers.drop(columns=added))
before = classifier.predict_proba(X_test)

# %%
# Later somebody wants to know of closed loops and answers for 60 rows. No network is trained again:
# the new label is a logistic regression on codes, and the earlier answers stay what they were.
answers[added] = all_answers[added].iloc[:60]
classifier.add_label(X_train.iloc[:60], answers[added].iloc[:60], name=added)
probability = pd.DataFrame(classifier.predict_proba(X_test), columns=classifier.label_names_)
print("earlier answers are the same:", (probability.iloc[:, :-1].to_numpy() == before).all())

# %%
# The same answers for classifiers that know one question each: on pixels, on as many principal
# components as the shared code has, and a nonlinear one on pixels.
pca = PCA(classifier.n_components_).fit(X_train)
single = {
    "logistic": LogisticRegression(),
    "PCA, logistic": make_pipeline(FrozenEstimator(pca), LogisticRegression()),
    "SVC": SVC(),
}
precision = pd.DataFrame(
    {
        name: {
            question: average_precision_score(
                truth[question],
                model.fit(X_train[known], answers.loc[known, question]).decision_function(X_test),
            )
            for question, known in answers.notna().items()
        }
        for name, model in single.items()
    }
)
precision["shared code"] = average_precision_score(
    truth[probability.columns], probability, average=None
)
print(precision.round(3))

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
rows = precision.rename({added: f"{added} (added)"})
axis.plot(rows, rows.index, "o", label=rows.columns)
axis.invert_yaxis()
axis.set_xlabel("average precision on new rows")
figure.legend(loc="outside right")
plt.show()

# %%
# The added label had 60 answers and a code that was made for other questions. These questions suit
# a shared code, for all are about the digit; labels that have little to do with each other can gain
# less.
