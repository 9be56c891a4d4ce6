"""Variational autoencoders on fixed binarized MNIST, trained on the ELBO and on a tighter bound.

The models have a code of 50 and two tanh layers of 200. They are trained on the 50,000 training
rows for 15 epochs, with the defaults of all other parameters: a variational autoencoder with one
code per row and step, and an importance-weighted autoencoder with five. The table shows, for each
model, minus the ELBO and minus the importance-weighted bound of the log-likelihood with 50 codes
(lower is better), both in nats per row on the 10,000 test rows, and the seconds of the fit.

Run `python examples/benchmarks/binary_images.py --data DIR [--epochs 15] [--rst FILE]`. DIR holds
`binarized_mnist_fixed.npz` with the keys `train`, `valid` and `test`: rows of 784 bits, each packed
into 98 bytes by `numpy.packbits`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import aligned, write_rst

from skae import VariationalAutoencoder

PIXELS = 784
HEADER = ("model", "draws per row", "-ELBO", "-log-likelihood", "seconds")
FORMATS = ("<28", ">16", ">10", ">17", ">9")


def load_images(folder):
    """Load training and test rows of 0 and 1 as float32."""
    with np.load(Path(folder) / "binarized_mnist_fixed.npz", allow_pickle=False) as file:
        return tuple(
            np.unpackbits(file[key], axis=1, count=PIXELS).astype(np.float32)
            for key in ("train", "test")
        )


def measure(n_importance_samples, train, test, max_epochs):
    """Return minus the ELBO, minus the log-likelihood, and the seconds of the fit."""
    model = VariationalAutoencoder(
        50,
        hidden_layer_sizes=(200, 200),
        activation="tanh",
        likelihood="bernoulli",
        n_importance_samples=n_importance_samples,
        max_epochs=max_epochs,
        random_state=0,
    )
    start = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - start
    return -model.elbo(test).mean(), -model.log_likelihood(test, n_samples=50).mean(), seconds


def main():
    """Print the table and write it if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of binarized_mnist_fixed.npz")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    train, test = load_images(arguments.data)
    print(describe_machine())
    print(aligned(HEADER, FORMATS))
    rows = []
    for n, name in ((1, "VAE"), (5, "importance-weighted")):
        elbo, log_likelihood, seconds = measure(n, train, test, arguments.epochs)
        rows.append((name, str(n), f"{elbo:.2f}", f"{log_likelihood:.2f}", f"{seconds:.0f}"))
        print(aligned(rows[-1], FORMATS), flush=True)
    if arguments.rst:
        caption = f"Binarized MNIST, nats per test row after {arguments.epochs} epochs"
        write_rst(arguments.rst, "binary_images.py", caption, HEADER, rows)


if __name__ == "__main__":
    main()
