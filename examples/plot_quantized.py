"""
Vector-quantized autoencoder: a codebook of digits
==================================================

A :class:`~skae.VectorQuantizedAutoencoder` represents a row by vectors from codebooks. With one
codebook, a row is described by a single number, the index of a vector, and the model resembles
k-means with centers that a network decodes. With two codebooks, a row is described by two numbers,
so that two codebooks of 10 vectors distinguish 100 kinds of rows.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from skae import VectorQuantizedAutoencoder

X = load_digits().data
train, test = X[:1200], X[1200:]

kmeans = {n: KMeans(n, n_init=3, random_state=0).fit(train) for n in (20, 100)}
one_codebook = VectorQuantizedAutoencoder(16, n_codes=20, max_epochs=30, random_state=0).fit(train)
two_codebooks = VectorQuantizedAutoencoder(
    16, n_codes=10, n_codebooks=2, max_epochs=30, random_state=0
).fit(train)


# %%
# The script prints the squared error per held-out row, and the perplexity of each codebook and of
# the centers of k-means on the training rows. The perplexity is the exponential of the entropy of
# the indices. It equals the number of vectors if all of them are equally frequent, and is smaller
# if some of them are rarely used.
#
# Two codebooks of 10 vectors have a smaller error than one codebook of 20 vectors. Their error is
# larger than that of k-means with 100 centers.
def perplexity(numbers: np.ndarray) -> float:
    counts = np.unique(numbers, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


for n, model in kmeans.items():
    error = ((model.cluster_centers_[model.predict(test)] - test) ** 2).sum(axis=1).mean()
    print(
        f"k-means, {n} centers: held-out error {error:.0f}, "
        f"perplexity {perplexity(model.predict(train)):.1f}"
    )
for name, model in {"1 codebook of 20": one_codebook, "2 codebooks of 10": two_codebooks}.items():
    perplexities = [round(perplexity(numbers), 1) for numbers in model.quantize(train).T]
    error = model.reconstruction_error(test).mean()
    print(f"{name}: held-out error {error:.0f}, perplexity {perplexities}")

# %%
# The figure shows the rows decoded from the 20 vectors of the single codebook, next to the 20
# centers of k-means. ``dequantize`` converts indices into the vectors of the codebook.
pictures = {
    "Decoded vectors": one_codebook.inverse_transform(
        one_codebook.dequantize(np.arange(20)[:, None])
    ),
    "Centers of k-means": kmeans[20].cluster_centers_,
}
figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for panel, (name, images) in zip(panels, pictures.items(), strict=True):
    panel.imshow(
        np.pad(images.reshape(4, 5, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
        .swapaxes(1, 2)
        .reshape(40, 50),
        cmap="gray_r",
        vmin=0,
        vmax=16,
    )
    panel.set(title=name, xticks=[], yticks=[])

# %%
# The next figure shows the rows decoded from all pairs of vectors of two codebooks. Each line
# belongs to one vector of the first codebook, and each column to one vector of the second.
grid = np.indices((10, 10)).reshape(2, -1).T
images = two_codebooks.inverse_transform(two_codebooks.dequantize(grid)).reshape(10, 10, 8, 8)
figure, panel = plt.subplots(figsize=(5, 5), layout="constrained")
panel.imshow(
    np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))).swapaxes(1, 2).reshape(100, 100),
    cmap="gray_r",
    vmin=0,
    vmax=16,
)
panel.set(xlabel="vector of codebook 2", ylabel="vector of codebook 1", xticks=[], yticks=[])
plt.show()
