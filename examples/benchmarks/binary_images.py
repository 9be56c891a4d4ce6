"""Variational autoencoders on fixed binarized MNIST, trained on the ELBO and on a tighter bound.

The models have 50 components and two hidden layers of 200 units with tanh activations. They are
trained on the 50,000 training rows for 15 epochs, with the defaults of all other parameters. The
first model draws one code per row and step, so that its objective is the evidence lower bound
(ELBO). The second model draws five, so that its objective is the importance-weighted bound. The
table shows, for each model, the negative ELBO and the negative importance-weighted bound of the
log-density with 50 draws, and the seconds of the fit. Both bounds are means over the 10,000 test
rows, in nats per row. Smaller values are better.

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
HEADER = ("model", "draws per row", "negative ELBO", "negative weighted bound", "seconds")
FORMATS = ("<28", ">15", ">15", ">25", ">9")


def load_images(folder):
    """Load training and test rows of 0 and 1 as float32."""
    with np.load(Path(folder) / "binarized_mnist_fixed.npz", allow_pickle=False) as file:
        return tuple(
            np.unpackbits(file[key], axis=1, count=PIXELS).astype(np.float32)
            for key in ("train", "test")
        )


def measure(n_importance_samples, train, test, max_epochs):
    """Return the negative ELBO, the negative weighted bound, and the seconds of the fit."""
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
