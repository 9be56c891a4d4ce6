"""
Denoising autoencoder: repair of damaged digits
===============================================

A :class:`~skae.DenoisingAutoencoder` sees damaged rows while it trains and must give back the clean
ones, so that it learns which columns tell what of which others. Here 30 % of the pixels of held-out
digits are set to 0. PCA and the plain autoencoder, which have only seen clean digits, take the
damage for part of the picture. All three have 16 components.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skae import Autoencoder, DenoisingAutoencoder

X = load_digits().data
train, test = X[:1200], X[1200:]
damaged = np.where(np.random.RandomState(0).uniform(size=test.shape) < 0.3, 0, test)

models = {
    "PCA": PCA(16, random_state=0),
    "Autoencoder": Autoencoder(16, max_epochs=40, random_state=0),
    "DenoisingAutoencoder": DenoisingAutoencoder(16, max_epochs=40, random_state=0),
}
pictures = {"original": test, "damaged": damaged}
for name, model in models.items():
    model.fit(train)
    pictures[name] = model.inverse_transform(model.transform(damaged))

# %%
# Squared errors against the original pixels, as shares of the damage itself. Below 1, a model has
# repaired more than it has spoilt.
damage = ((damaged - test) ** 2).sum()
for name in models:
    print(f"{name}: {((pictures[name] - test) ** 2).sum() / damage:.2f} of the damage is left")

# %%
# Ten held-out digits, one of each kind.
shown = [np.flatnonzero(load_digits().target[1200:] == digit)[0] for digit in range(10)]
figure, axes = plt.subplots(len(pictures), 10, figsize=(9, 5), layout="constrained")
for row, (name, images) in zip(axes, pictures.items(), strict=True):
    for axis, image in zip(row, images[shown], strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name.removesuffix("Autoencoder") or "Plain", rotation=0, ha="right")
plt.show()
