"""
Sparse autoencoder: few active components
=========================================

A :class:`~skae.SparseAutoencoder` composes each row from a few features out of many. The images of
this example consist of known parts. There are sixteen bars, the lines and the columns of an 8 by 8
grid. Each image contains each bar with a probability of 0.15, plus noise. The components of PCA are
mixtures of bars. The reconstruction error cannot separate them, because any rotation of the
components reconstructs the images equally well. A penalty on the codes makes one rotation better
than the others.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skae import SparseAutoencoder

rng = np.random.RandomState(0)
bars = np.zeros((16, 8, 8))
bars[np.arange(8), np.arange(8)] = 1
bars[np.arange(8, 16), :, np.arange(8)] = 1
bars = bars.reshape(16, 64)
strength = rng.uniform(0.5, 1.5, (1000, 16)) * (rng.uniform(size=(1000, 16)) < 0.15)
X = strength @ bars + 0.1 * rng.randn(1000, 64)
train, test = X[:700], X[700:]

# %%
# With ``hidden_layer_sizes=()``, the decoder is a linear map with one feature for each component. A
# reconstruction is a constant row plus the sum of the features, each multiplied by its component.
# The penalty is the sum of the components. ``weight_decay`` limits the size of the features.
# Otherwise larger features and smaller components, with the same products, could avoid the penalty.
#
# A component counts as active in a row if it exceeds a thousandth of the standard deviation of the
# component with the same index in the fit without a penalty.
weights = (0.0, 0.3, 1.0, 3.0)
fits = {}
for weight in weights:
    fits[weight] = SparseAutoencoder(
        24,
        hidden_layer_sizes=(),
        sparsity_weight=weight,
        weight_decay=100,
        learning_rate=0.01,
        max_epochs=40,
        random_state=0,
    ).fit(train)
threshold = 1e-3 * fits[0.0].transform(train).std(axis=0)
shares = [(fits[weight].transform(test) > threshold).mean() for weight in weights]
for weight, share in zip(weights, shares, strict=True):
    error = fits[weight].reconstruction_error(test).mean()
    print(f"sparsity_weight {weight:g}: {share:.2f} active, held-out error {error:.2f}")

# %%
# The images show the components of PCA and the features of two sparse autoencoders: what each
# component adds to a row. With ``sparsity_weight=1``, each bar has a component of its own. The
# script prints the cosine between each bar and the most similar feature, averaged over bars.
pca = PCA(16, random_state=0).fit(train)


def features(model: SparseAutoencoder) -> np.ndarray:
    """Return the sixteen features with the largest contributions, the largest first."""
    sizes = np.diag(model.transform(train).std(axis=0))
    pictures = model.inverse_transform(sizes) - model.inverse_transform(np.zeros_like(sizes))
    return pictures[np.argsort(-(pictures**2).sum(axis=1))[:16]]


def mean_cosine(pictures: np.ndarray) -> float:
    """Return the absolute cosine of each bar and its most similar feature, averaged over bars."""
    centered = bars - bars.mean(axis=1, keepdims=True)
    pictures = pictures - pictures.mean(axis=1, keepdims=True)
    lengths = np.outer(np.linalg.norm(centered, axis=1), np.linalg.norm(pictures, axis=1))
    return float((np.abs(centered @ pictures.T) / lengths).max(axis=1).mean())


panels = {
    "PCA": pca.components_,
    "sparsity_weight=0": features(fits[0.0]),
    "sparsity_weight=1": features(fits[1.0]),
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for axis, (name, pictures) in zip(axes, panels.items(), strict=True):
    print(f"{name}: mean cosine with the true bars {mean_cosine(pictures):.2f}")
    pictures = pictures / np.abs(pictures).max(axis=1, keepdims=True)
    tiles = np.pad(pictures.reshape(4, 4, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    axis.imshow(tiles.swapaxes(1, 2).reshape(40, 40), cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set(title=name, xticks=[], yticks=[])

# %%
# The share of active components of held-out rows falls as ``sparsity_weight`` increases.
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.plot(weights, shares, "o-")
axis.set(xlabel="sparsity_weight", ylabel="share of active components")

# %%
# The true parts of handwritten digits are not known. With ``sparsity="topk"`` and ``n_active=3``,
# three components are active in each row, and many features resemble strokes and arcs. The figure
# shows the 24 features with the largest contributions. A component adds ink where its feature is
# black, and removes ink where it is red. The images of 8 by 8 pixels are smoothed for display.
digits = load_digits().data
strokes = SparseAutoencoder(
    36,
    hidden_layer_sizes=(),
    sparsity="topk",
    n_active=3,
    max_epochs=60,
    random_state=0,
).fit(digits)
largest = np.diag(strokes.transform(digits).max(axis=0))
pictures = strokes.inverse_transform(largest) - strokes.inverse_transform(np.zeros_like(largest))
pictures = pictures[np.argsort(-(pictures**2).sum(axis=1))[:24]]
pictures /= np.abs(pictures).max(axis=1, keepdims=True)
figure, axes = plt.subplots(3, 8, figsize=(8, 3.2), layout="constrained")
for axis, picture in zip(axes.flat, pictures, strict=True):
    axis.imshow(picture.reshape(8, 8), cmap="RdGy", vmin=-1, vmax=1, interpolation="bicubic")
    axis.set(xticks=[], yticks=[])
plt.show()
