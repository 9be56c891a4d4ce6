"""Time of one epoch of `fit`, next to a hand-written torch loop and to other packages.

    python examples/benchmarks/epochs.py [--only S M digits L] [--rst FILE]

All candidates run in this process, in turns, on one thread and in float32. Each number is the
median of processor time over all epochs of all rounds; other programs on the machine affect
processor time least. The hand-written loop has the layers, batches and optimizer of skae and takes
its batches from a shuffled index. The other packages have the same layers without the linear skip,
which their networks lack: PyOD's AutoEncoder, a plain skorch net, pythae's AE, and scikit-learn's
MLPRegressor(X, X). Packages that are not installed are left out.
"""

import argparse
import itertools
import logging
import math
import statistics
import tempfile
import time
import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import skorch.callbacks.logging
import torch
from _machine import describe_machine
from _table import show
from sklearn.datasets import load_digits
from torch import nn

from skae import Autoencoder
from skae.nn.step import replay as step

RATE = 1e-3

ROUNDS = 3


def tables():
    """Return cases by name.

    A case holds rows, hidden widths, size of the code, batch size, epochs per round, and whether
    other packages are included.
    """
    rng = np.random.default_rng(0)
    digits = (load_digits().data / 16).astype(np.float32)
    return {
        "S": (digits, (64, 32), 8, 64, 30, True),
        "M": (rng.normal(size=(50_000, 30)).astype(np.float32), (64, 32), 8, 256, 6, True),
        "digits": (digits, (256, 128), 8, 64, 30, False),
        "L": (rng.random((60_000, 784), dtype=np.float32), (512, 256), 32, 256, 3, False),
    }


def mlp(*sizes):
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class Skip(nn.Module):
    """Sum of a network and a linear map."""

    def __init__(self, *sizes):
        super().__init__()
        self.residual = mlp(*sizes)
        self.linear = nn.Linear(sizes[0], sizes[-1])

    def forward(self, x):
        return self.residual(x) + self.linear(x)


def by_skae(X, hidden, k, batch_size, epochs, precision="float32"):
    fitted = Autoencoder(
        k,
        hidden_layer_sizes=hidden,
        batch_size=batch_size,
        max_epochs=epochs,
        learning_rate=RATE,
        early_stopping=False,
        precision=precision,
        random_state=0,
    ).fit(X)
    return fitted.history_[:, "dur"]


def by_untraced_skae(*case):
    """Run skae with plain autograd, as for objectives that cannot be traced."""
    pays_after, step.TRACE_PAYS_AFTER = step.TRACE_PAYS_AFTER, math.inf
    try:
        return by_skae(*case)
    finally:
        step.TRACE_PAYS_AFTER = pays_after


def by_hand(X, hidden, k, batch_size, epochs):
    torch.manual_seed(0)
    rows, d = torch.from_numpy(X), X.shape[1]
    model = nn.Sequential(Skip(d, *hidden, k), Skip(k, *hidden[::-1], d))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    seconds = []
    for _ in range(epochs):
        start, total = time.process_time(), 0.0
        for index in torch.randperm(len(rows)).split(batch_size):
            x = rows[index]
            optimizer.zero_grad()
            loss = 0.5 * ((model(x) - x) ** 2).sum(1).mean()
            loss.backward()
            optimizer.step()
            total = total + loss.detach() * len(x)
        float(total)
        seconds.append(time.process_time() - start)
    return seconds


def by_skorch(X, hidden, k, batch_size, epochs):
    from skorch import NeuralNetRegressor

    d = X.shape[1]
    net = NeuralNetRegressor(
        mlp(d, *hidden, k, *hidden[::-1], d),
        optimizer=torch.optim.Adam,
        lr=RATE,
        batch_size=batch_size,
        max_epochs=epochs,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )
    return net.fit(X, X).history[:, "dur"]


def by_pyod(X, hidden, k, batch_size, epochs):
    from pyod.models.auto_encoder import AutoEncoder

    return by_difference(
        lambda n: AutoEncoder(
            hidden_neuron_list=[*hidden, k],
            epoch_num=n,
            batch_size=batch_size,
            lr=RATE,
            device="cpu",
            verbose=0,
        ).fit(X),
        epochs,
    )


def by_pythae(X, hidden, k, batch_size, epochs):
    from pythae.models import AE, AEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    d = X.shape[1]

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.layers = mlp(d, *hidden, k)

        def forward(self, x):
            return ModelOutput(embedding=self.layers(x))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = mlp(k, *hidden[::-1], d)

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    def train(n):
        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=n,
                learning_rate=RATE,
                per_device_train_batch_size=batch_size,
                no_cuda=True,
            )
            model = AE(AEConfig(input_dim=(d,), latent_dim=k), Encoder(), Decoder())
            rows = PythaeRows(torch.from_numpy(X))
            BaseTrainer(model=model, train_dataset=rows, training_config=config).train()

    return by_difference(train, epochs)


class PythaeRows(torch.utils.data.Dataset):
    """Rows in the form that pythae requires."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        from pythae.data.datasets import DatasetOutput

        return DatasetOutput(data=self.rows[index])


def by_mlp_regressor(X, hidden, k, batch_size, epochs):
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(
        hidden_layer_sizes=(*hidden, k, *hidden[::-1]), batch_size=batch_size, random_state=0
    )
    seconds = []
    for _ in range(epochs):
        start = time.process_time()
        model.partial_fit(X, X)
        seconds.append(time.process_time() - start)
    return seconds


def by_difference(fit, epochs):
    """Estimate the seconds of an epoch as the difference between a longer and a shorter fit."""
    seconds = []
    for n in (1, 1 + epochs):
        start = time.process_time()
        fit(n)
        seconds.append(time.process_time() - start)
    return [(seconds[1] - seconds[0]) / epochs]


def by_float64_skae(X, *case):
    """Run skae on float64 rows with `precision="auto"`."""
    return by_skae(X.astype(np.float64), *case, precision="auto")


CONTENDERS = {
    "hand-written loop": by_hand,
    "skae": by_skae,
    "skae, not traced": by_untraced_skae,
    "skae, float64 rows": by_float64_skae,
}

PEERS = {
    "sklearn": ("MLPRegressor(X, X)", by_mlp_regressor),
    "skorch": ("plain skorch", by_skorch),
    "pyod": ("PyOD AutoEncoder", by_pyod),
    "pythae": ("pythae AE", by_pythae),
}


def compare(cases):
    """Yield the caption, the header, and one row per case and contender."""
    yield f"Processor time of one epoch: medians over the epochs of {ROUNDS} rounds, and ratios"
    yield "case", "implementation", "ms per epoch", "ratio to the loop", "ratio to skae"
    for name, (*case, with_peers) in cases.items():
        contenders = dict(CONTENDERS)
        if with_peers:
            contenders |= dict(peer for module, peer in PEERS.items() if find_spec(module))
        seconds = {label: [] for label in contenders}
        for _ in range(ROUNDS):
            for label, run in contenders.items():
                epochs = run(*case)
                # The first epoch of a fit is left out, because it may include tracing.
                seconds[label] += epochs[1:] or epochs
        medians = {label: statistics.median(times) for label, times in seconds.items()}
        for label, median in medians.items():
            loop, skae = medians["hand-written loop"], medians["skae"]
            yield name, label, f"{1e3 * median:.1f}", f"{median / loop:.2f}", f"{median / skae:.2f}"


def main():
    """Print the table and write it if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = tables()
    parser.add_argument("--only", nargs="*", choices=cases, help="cases to run")
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    print(describe_machine())
    torch.set_num_threads(1)
    # skorch computes `history_[:, "dur"]` with this clock.
    skorch.callbacks.logging.time = SimpleNamespace(time=time.process_time)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    formats = ("<8", "<22", ">13", ">19", ">15")
    chosen = {name: cases[name] for name in arguments.only or cases}
    show(compare(chosen), formats, "epochs.py", arguments.rst)


if __name__ == "__main__":
    main()
