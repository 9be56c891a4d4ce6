"""
Model selection: how many components
====================================

Held-out error falls with every component, whether the data have it or not, so it cannot tell how
many to take. Held-out density, which ``score`` tells in nats per row, can.
:func:`~skae.components_path` goes from the smallest size to the largest at the price of two or
three fits.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import Autoencoder, ComponentsPathDisplay, components_path

# %%
# Made rows, so that the answer is known: three hidden causes, bent by a random network into twelve
# columns, plus noise. The error of held-out rows goes on falling beyond three components, if
# slowly. Their density has its maximum at three, the true size, which is suggested. PCA needs more
# than the true size to follow the bends: its density goes on rising, and stays below.
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
# A real table has no true size. Scanned digits are worth a component more for long: both errors
# fall and both densities rise up to the largest size, the autoencoder's ever more slowly and always
# above PCA's. The largest density alone would take the largest size. But longer codes have been
# trained for longer here, and ``worth`` takes that off: it is what the last components bring
# compared with training for as long without them. The last ones bring too little, and a smaller
# size is suggested.
digits = load_digits().data / 16
estimator = Autoencoder(max_epochs=40, random_state=0)
path = components_path(estimator, digits, param_range=[2, 4, 8, 12, 16, 24])
ComponentsPathDisplay.from_predictions(path)
print("suggested:", path.suggested)
print("within one standard error of it:", path.one_standard_error())
print(path.results[columns].round(2).to_string())
plt.show()
