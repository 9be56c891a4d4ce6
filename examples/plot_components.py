"""
Model selection: how many components
====================================

The error on held-out rows usually decreases with every further component, whether or not the data
need it, so that it cannot determine the number of components. The log-density of held-out rows is
better suited, because a component that the data do not need lowers it. ``score`` returns it in nats
per row. :func:`~skae.components_path` fits all sizes, from the smallest to the largest, in about
the time of one to three fits of the largest size.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import Autoencoder, ComponentsPathDisplay, components_path

# %%
# The rows are generated, so that the true number of components is known: a random nonlinear network
# maps three latent variables to twelve columns, and noise is added. The error on held-out rows
# keeps decreasing slowly beyond three components. Their log-density has its maximum at three, and
# three components are suggested. PCA needs more than three components, because the rows lie near a
# curved surface: its density keeps increasing, but stays below that of the autoencoder.
#
# The columns of the table contain the squared error per row on training and on held-out rows, that
# of PCA on held-out rows, and the log-density of held-out rows for the autoencoder and for PCA. The
# column ``worth`` is explained below.
rng = np.random.RandomState(0)
latent = rng.randn(1500, 3)
X = np.tanh(latent @ rng.randn(3, 20)) @ rng.randn(20, 12) / np.sqrt(20)
X += 0.1 * rng.randn(*X.shape)

path = components_path(Autoencoder(random_state=0), X, param_range=range(1, 7))
ComponentsPathDisplay.from_predictions(path)
columns = ["train_error", "test_error", "pca_test_error", "test_nats", "pca_test_nats", "worth"]
print("suggested:", path.suggested)
print(path.results[columns].round(2).to_string())
plt.show()

# %%
# Many real tables have no true number of components. For scanned digits, the held-out errors of the
# autoencoder and of PCA decrease, and their held-out densities increase, up to the largest size.
# The density of the autoencoder increases more and more slowly and is always above that of PCA. The
# maximum of the density alone would select the largest size. However, each size continues the
# training of the smaller one, so that models with longer codes have been trained for longer. The
# column ``worth`` takes this into account. It is the gain in held-out density from the components
# that were added last, compared with training the smaller size for as many epochs more. It is NaN
# for sizes for which this comparison was not needed. The last components gain too little, so that a
# smaller size is suggested.
digits = load_digits().data / 16
estimator = Autoencoder(max_epochs=40, random_state=0)
path = components_path(estimator, digits, param_range=[2, 4, 8, 12, 16, 24])
ComponentsPathDisplay.from_predictions(path)
print("suggested:", path.suggested)
print("smallest size within one standard error of it:", path.one_standard_error())
print(path.results[columns].round(2).to_string())
plt.show()
