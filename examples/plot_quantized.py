"""
Vector-quantized autoencoder: a codebook of digits
==================================================

With one codebook, a :class:`~skae.VectorQuantizedAutoencoder` is a k-means whose centres come out
of a decoder: each row is known by a single number. With two codebooks a row is known by two
numbers, and 2 times 10 codes distinguish 100 kinds of rows.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from skae import VectorQuantizedAutoencoder

X = load_digits().data
train, test = X[:1200], X[1200:]

kmeans = {n: KMeans(n, n_init=3, random_state=0).fit(train) for n in (20, 100)}
single = VectorQuantizedAutoencoder(16, n_codes=20, max_epochs=30, random_state=0).fit(train)
double = VectorQuantizedAutoencoder(
    16, n_codes=10, n_codebooks=2, max_epochs=30, random_state=0
).fit(train)


# %%
# The perplexity is the number of equally frequent codes that would be as hard to guess: where it is
# near the number of codes, all of them are in use.
def perplexity(numbers: np.ndarray) -> float:
    counts = np.unique(numbers, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


for n, model in kmeans.items():
    error = ((model.cluster_centers_[model.predict(test)] - test) ** 2).sum(axis=1).mean()
    print(
        f"k-means, {n} centres: held-out error {error:.0f}, "
        f"perplexity {perplexity(model.predict(train)):.1f}"
    )
for name, model in {"1 codebook of 20": single, "2 codebooks of 10": double}.items():
    used = [round(perplexity(numbers), 1) for numbers in model.quantize(train).T]
    error = model.reconstruction_error(test).mean()
    print(f"{name}: held-out error {error:.0f}, perplexity {used}")

# %%
# What each code stands for, next to the centres of k-means.
pictures = {
    "Decoded codes": single.inverse_transform(single.dequantize(np.arange(20)[:, None])),
    "Centres of k-means": kmeans[20].cluster_centers_,
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
# Two codebooks: the rows of the table are the first number, its columns the second.
grid = np.indices((10, 10)).reshape(2, -1).T
images = double.inverse_transform(double.dequantize(grid)).reshape(10, 10, 8, 8)
figure, panel = plt.subplots(figsize=(5, 5), layout="constrained")
panel.imshow(
    np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1))).swapaxes(1, 2).reshape(100, 100),
    cmap="gray_r",
    vmin=0,
    vmax=16,
)
panel.set(xlabel="second number", ylabel="first number", xticks=[], yticks=[])
plt.show()
