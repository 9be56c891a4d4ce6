"""Does a linear autoencoder find the subspace of PCA?

The autoencoder has no hidden layers and is fitted to all rows of digits, with k = 2, 8 and 16
components and without early stopping. It is initialized at the PCA solution, or at random with
`linear_skip=False` and 1,000 epochs. The table shows the ratio of its squared error to PCA's, the
largest principal angle between the decoder's subspace and PCA's, and the largest relative
difference between the log-densities of rows under the autoencoder and under PCA.

Run `python examples/benchmarks/linear.py`.
"""

import numpy as np
from _machine import describe_machine
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skae import Autoencoder

STARTS = {
    "PCA": {},
    "random": {"linear_skip": False, "max_epochs": 1000, "learning_rate": 1e-2},
}


def main():
    """Print the table."""
    X = load_digits().data
    print(describe_machine())
    print(f"{'start':<8}{'k':>4}{'error ratio':>14}{'angle (degrees)':>17}{'density':>11}")
    for start, parameters in STARTS.items():
        for k in (2, 8, 16):
            pca = PCA(k).fit(X)
            error = ((pca.inverse_transform(pca.transform(X)) - X) ** 2).sum()
            autoencoder = Autoencoder(
                k, hidden_layer_sizes=(), early_stopping=False, random_state=0, **parameters
            ).fit(X)
            ratio = autoencoder.reconstruction_error(X).sum() / error
            origin = autoencoder.inverse_transform(np.zeros((1, k)))
            axes = autoencoder.inverse_transform(np.eye(k)) - origin
            angle = np.degrees(subspace_angles(axes.T, pca.components_.T).max())
            expected = pca.score_samples(X)
            density = np.abs(autoencoder.score_samples(X) / expected - 1).max()
            print(f"{start:<8}{k:>4}{ratio:>14.6f}{angle:>17.4f}{density:>11.1e}", flush=True)


if __name__ == "__main__":
    main()
