"""
Vector-quantized autoencoder: a codebook of digits
==================================================

With one codebook, a :class:`~skae.VectorQuantizedAutoencoder` resembles k-means with centers that
are decoded by a network: each row is described by a single number. With two codebooks, a row is
described by two numbers, so that 2 times 10 codes distinguish 100 kinds of rows.
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
# The perplexity is the number of equally frequent codes with the same entropy. If it is close to
# the number of codes, all of them are in use.
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
# The decoded codes, next to the centers of k-means.
pictures = {
    "Decoded codes": one_codebook.inverse_transform(
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
# Two codebooks: the first number selects the line of the image, and the second number the column.
grid = np.indices((10, 10)).reshape(2, -1).T
images = two_codebooks.inverse_transform(two_codebooks.dequantize(grid)).reshape(10, 10, 8, 8)
figure, panel = plt.subplots(figsize=(5, 5), layout="constrained")
panel.imshow(
    np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))).swapaxes(1, 2).reshape(100, 100),
    cmap="gray_r",
    vmin=0,
    vmax=16,
)
panel.set(xlabel="second number", ylabel="first number", xticks=[], yticks=[])
plt.show()
