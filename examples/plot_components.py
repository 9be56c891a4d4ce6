"""
Model selection: how many components
====================================

The error on held-out rows falls with every further component, whether or not the data need it, so
it cannot determine the number of components. The log-density of held-out rows can, because it is
largest at a suitable size; ``score`` returns it in nats per row. :func:`~skae.components_path` fits
all sizes, from the smallest to the largest, in about the time of two or three fits.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import Autoencoder, ComponentsPathDisplay, components_path

# %%
# The rows are generated, so that the right number of components is known: a random nonlinear
# network maps three hidden causes to twelve columns, and noise is added. The error on held-out rows
# keeps falling slowly beyond three components. Their log-density has its maximum at three, the true
# number, which is suggested. PCA needs more than three components to follow the curved surface: its
# density keeps rising, but stays below that of the autoencoder.
rng = np.random.RandomState(0)
causes = rng.randn(1500, 3)
X = np.tanh(causes @ rng.randn(3, 20)) @ rng.randn(20, 12) / np.sqrt(20)
X += 0.1 * rng.randn(*X.shape)

path = components_path(Autoencoder(random_state=0), X, param_range=range(1, 7))
ComponentsPathDisplay.from_predictions(path)
columns = ["train_error", "test_error", "pca_test_error", "test_nats", "pca_test_nats", "worth"]
print("suggested:", path.suggested)
print(path.results[columns].round(2).to_string())
plt.show()

# %%
# A real table has no true number of components. For scanned digits, both errors fall and both
# densities rise up to the largest size. The density of the autoencoder rises more and more slowly
# and is always above that of PCA. The maximum of the density alone would select the largest size.
# However, models with longer codes have been trained for longer here. The column ``worth`` takes
# this into account: it is the gain in held-out density from the last components, compared with
# training for the same time without them. The last components gain too little, so a smaller size is
# suggested.
digits = load_digits().data / 16
estimator = Autoencoder(max_epochs=40, random_state=0)
path = components_path(estimator, digits, param_range=[2, 4, 8, 12, 16, 24])
ComponentsPathDisplay.from_predictions(path)
print("suggested:", path.suggested)
print("within one standard error of it:", path.one_standard_error())
print(path.results[columns].round(2).to_string())
plt.show()
