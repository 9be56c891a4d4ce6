"""
Image restoration: colors, resolution and missing blocks
========================================================

Colorization, super-resolution and inpainting restore information that is missing from an image. A
:class:`~skae.DenoisingAutoencoder` learns such a task from images that it corrupts during training.
The parameter ``corruption`` selects what is removed: "grayscale" removes the colors, "downsampling"
halves the resolution, and "block" masks a square at a random position. ``feature_shape`` is the
shape of the image in each row: (channels, height, width).

The rows are patches of 8 by 8 pixels from two photographs. Each model is fitted to patches of one
photograph. A rectangle of the photograph is held out, and the figure shows how the models restore
it. The code has as many components as the row has columns, so that the initial network, which is
PCA, reproduces its input without error. Training only has to change what is corrupted.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_images

from skae import DenoisingAutoencoder

SIZE, HEIGHT, WIDTH = 8, 96, 128
photographs = [np.moveaxis(image, -1, 0) / np.float32(255) for image in load_sample_images().images]
corners = [(200, 40), (150, 180)]


def as_patches(image):
    """Split an image into patches and return them as rows; its sides are multiples of `SIZE`."""
    channels, height, width = image.shape
    parts = image.reshape(channels, height // SIZE, SIZE, width // SIZE, SIZE)
    return parts.transpose(1, 3, 0, 2, 4).reshape(-1, channels * SIZE * SIZE)


def as_image(patches):
    """Join the patches of a held-out rectangle into an image."""
    parts = patches.reshape(HEIGHT // SIZE, WIDTH // SIZE, 3, SIZE, SIZE)
    return parts.transpose(0, 3, 1, 4, 2).reshape(HEIGHT, WIDTH, 3).clip(0, 1)


rng = np.random.default_rng(0)
train, test = [], []
for image, (top, left) in zip(photographs, corners, strict=True):
    test.append(image[:, top : top + HEIGHT, left : left + WIDTH])
    patches = []
    while len(patches) < 4_000:
        i, j = (rng.integers(size - SIZE + 1) for size in image.shape[1:])
        overlaps = top - SIZE < i < top + HEIGHT and left - SIZE < j < left + WIDTH
        if not overlaps:
            patches.append(image[:, i : i + SIZE, j : j + SIZE])
    train.append(np.stack(patches))

# %%
# The functions below corrupt the held-out patches. The masked square has a fixed position. The
# quality of an image is measured by the peak signal-to-noise ratio (PSNR). An increase of 10 dB
# means that the squared error falls to a tenth.
#
# The figure shows the original, the corrupted and the restored rectangle, with the PSNR of the
# latter two. All restored images have a higher PSNR than the corrupted ones except for one: the
# colors of the first photograph are faint, and the restored colors are no closer to them than gray
# is.


def remove_colors(X):
    return np.repeat(X.reshape(len(X), 3, -1).mean(axis=1), 3, axis=0).reshape(len(X), -1)


def halve_resolution(X):
    small = torch.nn.functional.avg_pool2d(torch.from_numpy(X.reshape(-1, 3, SIZE, SIZE)), 2)
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    return large.numpy().reshape(len(X), -1)


def remove_block(X):
    images = X.reshape(-1, 3, SIZE, SIZE).copy()
    images[:, :, 2:6, 2:6] = 0
    return images.reshape(len(X), -1)


def psnr(X, Y):
    return -10 * np.log10(((X - Y) ** 2).mean())


tasks = {
    "grayscale": remove_colors,
    "downsampling": halve_resolution,
    "block": remove_block,
}
figure, axes = plt.subplots(6, 3, figsize=(8, 12), layout="constrained")
for i, (corruption, corrupt) in enumerate(tasks.items()):
    for row, patches, image in zip(axes[2 * i : 2 * i + 2], train, test, strict=True):
        model = DenoisingAutoencoder(
            3 * SIZE * SIZE,
            corruption=corruption,
            corruption_level=0.5,
            feature_shape=(3, SIZE, SIZE),
            max_epochs=10,
            random_state=0,
        ).fit(patches)
        rows = as_patches(image)
        corrupted = corrupt(rows)
        restored = model.reconstruct(corrupted)
        titles = ["original", f"{corruption}: {psnr(corrupted, rows):.1f} dB"]
        titles.append(f"restored: {psnr(restored, rows):.1f} dB")
        for ax, picture, title in zip(row, (rows, corrupted, restored), titles, strict=True):
            ax.imshow(as_image(picture))
            ax.set_title(title, fontsize=9)
            ax.axis("off")
plt.show()
