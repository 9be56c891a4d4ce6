"""Images: convolutional and dense networks, deep networks, binary images, and restoration.

There are four tables, each printed with its caption. All errors are on held-out images.

- `mnist`: PCA, the default network and the convolutional one with codes of 32. Both networks are
  trained for the same time, with as many epochs as fit into `--seconds`. Squared error per image,
  pixels in [0, 1].
- `deep`: 784-1000-500-250-30 as in Hinton & Salakhutdinov (2006), with and without layer-wise
  pre-training, weight_decay=300.
- `binary`: convolutional and dense variational autoencoders with the same number of weights, on
  fixed binarized MNIST for the same time. Nats per image: minus the evidence lower bound, and minus
  the importance-weighted bound of the log-likelihood.
- `repair`: images restored by `DenoisingAutoencoder` from corrupted ones, in dB of peak
  signal-to-noise ratio: patches of scikit-learn's two photographs at half the resolution (the
  reference is bilinear enlargement) and without colors (the reference is gray), faces and digits
  with a blank block of 8 by 8 pixels (the reference is the training mean; only the pixels of the
  block count).

Run `python examples/benchmarks/images.py --data DIR [--only TABLE] [--rst FOLDER]`. DIR holds
`mnist_train10k.npz`, `mnist_test10k.npz`, `binarized_mnist_fixed.npz` and `olivetti.npz`. Set
OMP_NUM_THREADS=1 to measure one core.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from _table import show
from binary_images import load_images
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA

from skae import Autoencoder, DenoisingAutoencoder, VariationalAutoencoder
from skae.nn.corruption import ColumnStatistics, NamedCorruption

IMAGE = {"architecture": "conv", "feature_shape": (1, 28, 28)}
LEAST_EPOCHS, ROUNDS = 5, 3
TILE, PATCH = 32, 8
"""Sides of tiles and patches, in pixels.

Photographs are split into tiles, of which a quarter is held out, and tiles into patches.
"""


def load(folder, name):
    """Load images as float32 rows in [0, 1], and their labels."""
    with np.load(Path(folder) / name, allow_pickle=False) as file:
        X = file["X"]
        return X.reshape(len(X), -1).astype(np.float32) / 255, file["y"]


def digits(folder):
    return [load(folder, f"mnist_{part}10k.npz")[0] for part in ("train", "test")]


def time_fit(model, X):
    start = time.perf_counter()
    model.fit(X)
    return time.perf_counter() - start


def fit_for(model, X, seconds):
    """Fit with as many epochs as fit into the given time, and return the seconds of the fit."""
    model.set_params(max_epochs=LEAST_EPOCHS)
    elapsed = time_fit(model, X)
    for _ in range(ROUNDS):
        # The speed of a machine varies, so that a single estimate may be wrong.
        per_epoch = np.median([epoch["dur"] for epoch in model.history_])
        rest = elapsed - model.n_iter_ * per_epoch
        model.set_params(max_epochs=max(1, int((seconds - rest) / per_epoch)))
        elapsed = time_fit(model, X)
        if abs(elapsed - seconds) < 0.15 * seconds:
            break
    return elapsed


def pca_error(k, train, test):
    pca = PCA(k, random_state=0).fit(train)
    return ((test - pca.inverse_transform(pca.transform(test))) ** 2).sum(axis=1).mean()


def mnist(folder, seconds):
    train, test = digits(folder)
    yield f"MNIST, 10,000 training images, 32 components, {seconds:g} seconds of training each"
    yield "model", "epochs", "seconds", "squared error", "ratio to PCA", "ratio to the MLP"
    pca = pca_error(32, train, test)
    yield "PCA", "-", "-", f"{pca:.2f}", "1.00", "-"
    mlp_error = None
    for name, parameters in {"Autoencoder": {}, "Autoencoder, conv": IMAGE}.items():
        model = Autoencoder(32, random_state=0, **parameters)
        spent = fit_for(model, train, seconds)
        error = model.reconstruction_error(test).mean()
        mlp_error = mlp_error or error
        ratios = f"{error / pca:.2f}", f"{error / mlp_error:.2f}"
        yield name, str(model.n_iter_), f"{spent:.0f}", f"{error:.2f}", *ratios


def deep(folder, seconds):
    train, test = digits(folder)
    yield "MNIST, 10,000 training images, encoders of the widths 784-1000-500-250-30"
    yield "model", "epochs", "seconds", "squared error", "ratio to PCA"
    pca = pca_error(30, train, test)
    yield "PCA", "-", "-", f"{pca:.2f}", "1.00"
    for layerwise in (0, 5):
        model = Autoencoder(
            30,
            hidden_layer_sizes=(1000, 500, 250),
            weight_decay=300,
            layerwise_epochs=layerwise,
            max_epochs=50,
            random_state=0,
        )
        spent = time_fit(model, train)
        error = model.reconstruction_error(test).mean()
        name = f"Autoencoder, layerwise_epochs={layerwise}"
        yield name, str(model.n_iter_), f"{spent:.0f}", f"{error:.2f}", f"{error / pca:.2f}"


def count_weights(model):
    return sum(p.numel() for p in model.module_.parameters())


def binary(folder, seconds):
    train, test = load_images(folder)
    yield f"Fixed binarized MNIST, 32 components, about {2 * seconds:g} seconds of training each"
    yield "model", "weights", "epochs", "seconds", "-ELBO", "-log-likelihood"
    options = {"likelihood": "bernoulli", "random_state": 0}
    for name, parameters in {
        "VAE, conv": IMAGE,
        "VAE, MLP of as many weights": {"hidden_layer_sizes": (58, 58)},
        "VAE, default MLP": {},
    }.items():
        model = VariationalAutoencoder(32, **options, **parameters)
        spent = fit_for(model, train, 2 * seconds)
        nats = -model.elbo(test).mean(), -model.log_likelihood(test).mean()
        counts = f"{count_weights(model):,}", str(model.n_iter_), f"{spent:.0f}"
        yield name, *counts, *(f"{n:.1f}" for n in nats)


def photographs(n_train=100_000, n_test=6_000):
    """Return patches (n, 3, PATCH, PATCH) of training tiles and of held-out tiles."""
    rng = np.random.default_rng(0)
    patches = [], []
    for photograph in load_sample_images().images:
        image = np.moveaxis(photograph, -1, 0).astype(np.float32) / 255
        n_rows, n_columns = (size // TILE for size in image.shape[1:])
        is_held_out = rng.random((n_rows, n_columns)) < 0.25
        for part, tiles, n in zip(
            patches, (~is_held_out, is_held_out), (n_train // 2, n_test // 2), strict=True
        ):
            places = np.argwhere(tiles)
            corners = places[rng.integers(len(places), size=n)] * TILE
            corners += rng.integers(0, TILE - PATCH + 1, (n, 2))
            part += [image[:, i : i + PATCH, j : j + PATCH] for i, j in corners]
    return [np.stack(part) for part in patches]


def corrupt(X, name, shape, level=0.3):
    """Return rows corrupted by a named corruption, and which cells a block has blanked."""
    x = torch.from_numpy(X.reshape(len(X), -1))
    corruption = NamedCorruption(name, level, ColumnStatistics(x, torch.ones(len(x)), x, shape))
    corrupted, marked = (
        corruption(rows, torch.Generator().manual_seed(0)) for rows in (x, torch.full_like(x, -1))
    )
    return corrupted.numpy(), marked.numpy() != -1


def psnr(X, restored, where=None):
    return -10 * np.log10(np.mean((X - restored) ** 2, where=True if where is None else where))


def repair(folder, seconds):
    yield "Restoration of corrupted images: peak signal-to-noise ratio on held-out images, in dB"
    yield "images, corruption", "network", "seconds", "reference", "restored", "gain"
    train, test = photographs()
    shape = (3, PATCH, PATCH)
    rows = test.reshape(len(test), -1)
    for corruption in ("downsampling", "grayscale"):
        corrupted, _ = corrupt(test, corruption, shape)
        for name, parameters in {
            "mlp": {},
            "conv, linear_skip=True": {
                "architecture": "conv",
                "hidden_layer_sizes": (64, 64),
                "linear_skip": True,
                "learning_rate": 6e-3,
            },
        }.items():
            model = DenoisingAutoencoder(
                rows.shape[1],
                corruption=corruption,
                feature_shape=shape,
                max_epochs=20,
                random_state=0,
                **parameters,
            )
            spent = time_fit(model, train)
            before, after = psnr(rows, corrupted), psnr(rows, model.reconstruct(corrupted))
            figures = f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"
            yield f"photographs, {corruption}", name, f"{spent:.0f}", *figures
    faces, who = load(folder, "olivetti.npz")
    for name, (train, test), side, epochs in (
        ("digits", digits(folder), 28, 30),
        ("faces", (faces[who < 32], faces[who >= 32]), 64, 60),
    ):
        shape = (1, side, side)
        corrupted, inside = corrupt(test, "block", shape, 8 / side)
        model = DenoisingAutoencoder(
            64,
            architecture="conv",
            feature_shape=shape,
            corruption="block",
            corruption_level=8 / side,
            max_epochs=epochs,
            random_state=0,
        )
        spent = time_fit(model, train)
        before = psnr(test, np.broadcast_to(train.mean(axis=0), test.shape), inside)
        after = psnr(test, model.reconstruct(corrupted), inside)
        figures = f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"
        yield f"{name}, block", "conv", f"{spent:.0f}", *figures


TABLES = {
    "mnist": (mnist, ("<20", ">8", ">9", ">15", ">14", ">18")),
    "deep": (deep, ("<36", ">8", ">9", ">15", ">14")),
    "binary": (binary, ("<30", ">9", ">8", ">9", ">9", ">17")),
    "repair": (repair, ("<28", "<24", ">9", ">11", ">10", ">8")),
}


def main():
    """Print the tables and write them if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the images")
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--seconds", type=float, default=60, help="of training in `mnist`")
    parser.add_argument("--rst", metavar="FOLDER", help="where to write the tables for the docs")
    arguments = parser.parse_args()
    for name, (table, formats) in TABLES.items():
        if arguments.only in (None, name):
            rst = arguments.rst and Path(arguments.rst) / f"images_{name}_table.rst"
            show(table(arguments.data, arguments.seconds), formats, "images.py", rst)


if __name__ == "__main__":
    main()
