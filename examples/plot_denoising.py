"""
Denoising autoencoder: restoration of corrupted digits
======================================================

A :class:`~skae.DenoisingAutoencoder` is trained to restore clean rows from corrupted ones, so that
it learns to predict columns from one another. By default, a random 30 % of the cells are set to 0
during training. In this example, the held-out digits are corrupted in the same way. PCA and the
plain autoencoder, which are fitted to clean digits only, reproduce a larger part of the corruption.
All three models have 16 components.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skae import Autoencoder, DenoisingAutoencoder

X = load_digits().data
train, test = X[:1200], X[1200:]
corrupted = np.where(np.random.RandomState(0).uniform(size=test.shape) < 0.3, 0, test)

models = {
    "PCA": PCA(16, random_state=0),
    "Autoencoder": Autoencoder(16, max_epochs=40, random_state=0),
    "DenoisingAutoencoder": DenoisingAutoencoder(16, max_epochs=40, random_state=0),
}
images = {"original": test, "corrupted": corrupted}
for name, model in models.items():
    model.fit(train)
    images[name] = model.inverse_transform(model.transform(corrupted))

# %%
# The squared error of the restored rows is divided by that of the corrupted rows. If the ratio is
# below 1, the restored rows are closer to the original ones than the corrupted rows are.
corrupted_error = ((corrupted - test) ** 2).sum()
for name in models:
    error = ((images[name] - test) ** 2).sum()
    print(f"{name}: {error / corrupted_error:.2f} times the error of the corrupted rows")

# %%
# The figure shows ten held-out digits, one of each class.
shown = [np.flatnonzero(load_digits().target[1200:] == digit)[0] for digit in range(10)]
figure, axes = plt.subplots(len(images), 10, figsize=(9, 5), layout="constrained")
for row, (name, rows) in zip(axes, images.items(), strict=True):
    for axis, image in zip(row, rows[shown], strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name.removesuffix("Autoencoder") or "Plain", rotation=0, ha="right")
plt.show()
