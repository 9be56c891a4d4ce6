"""How well components separate causes that are known.

Each of three causes, which are independent normal variables, determines four of twelve columns. A
column is a random smooth function of its cause, a sum of three hyperbolic tangents, plus noise with
a tenth of its standard deviation. Columns are standardized. There are 2,000 training rows, and all
figures are those of 1,000 further rows, over 20 draws of functions and rows.

- Groups: each column belongs to the component with its largest share in
  `skae.metrics.feature_attribution`. The adjusted Rand index compares these groups of columns with
  the causes. The table shows in how many draws it is at least .9, and its mean.
- R2: the share of the variance of a cause that a linear regression on all components explains, mean
  over causes.
- SAP: the separated attribute predictability of Kumar, Sattigeri and Balakrishnan (ICLR 2018), for
  each cause the difference between the two largest squared correlations with a component, mean over
  causes. It is 1 if each cause has a component of its own.

PCA is the autoencoder before training, with which it shares all components.

Run `python examples/benchmarks/meaning.py [--draws 20] [--rst docs/meaning_table.rst]`.
"""

import argparse
import warnings

import numpy as np
from _machine import describe_machine
from _table import show
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score

from skae import Autoencoder, VariationalAutoencoder
from skae.metrics import feature_attribution

CAUSES, PER_CAUSE, UNITS = 3, 4, 3
ROWS, NEW_ROWS, NOISE = 2000, 1000, 0.1

MODELS = {
    "PCA": lambda seed: Autoencoder(CAUSES, hidden_layer_sizes=(), max_epochs=0),
    "Autoencoder": lambda seed: Autoencoder(CAUSES, random_state=seed),
    **{
        f"VariationalAutoencoder, beta={beta:g}": (
            lambda seed, beta=beta: VariationalAutoencoder(CAUSES, beta=beta, random_state=seed)
        )
        for beta in (1.0, 4.0, 16.0)
    },
}


def planted(seed):
    """Return standardized rows, the causes of the rows, and the cause of each column."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(ROWS + NEW_ROWS, CAUSES))
    groups = np.repeat(np.arange(CAUSES), PER_CAUSE)
    slope, shift, size = rng.normal(size=(3, UNITS, len(groups)))
    X = (size * np.tanh(slope * causes[:, None, groups] + shift)).sum(axis=1)
    X = X / X.std(axis=0) + NOISE * rng.normal(size=X.shape)
    return (X - X.mean(axis=0)) / X.std(axis=0), causes, groups


def measures(model, X, causes, groups):
    """Return the adjusted Rand index of the groups of columns, the R2 and the SAP score."""
    strongest = feature_attribution(model, X).argmax(axis=0)
    codes = model.transform(X)
    r2 = LinearRegression().fit(codes, causes).score(codes, causes)
    k = codes.shape[1]
    # A component that is constant has no correlation.
    with np.errstate(invalid="ignore"):
        squared = np.nan_to_num(np.corrcoef(codes.T, causes.T)[:k, k:]) ** 2
    second, first = np.sort(squared, axis=0)[-2:]
    return adjusted_rand_score(groups, strongest), r2, (first - second).mean()


def report(n_draws):
    """Yield the caption, the header, and a row for each model."""
    yield f"Three planted causes of twelve columns, {n_draws} draws"
    yield ["model", "groups found", "mean Rand index", "R2", "SAP"]
    for name, make in MODELS.items():
        found = []
        for seed in range(n_draws):
            X, causes, groups = planted(seed)
            model = make(seed).fit(X[:ROWS])
            found.append(measures(model, X[ROWS:], causes[ROWS:], groups))
        index, r2, sap = np.array(found).T
        numbers = [f"{index.mean():.2f}", f"{r2.mean():.2f}", f"{sap.mean():.2f}"]
        yield [name, f"{(index >= 0.9).sum()} of {n_draws}", *numbers]


def main():
    """Print the table and write it if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--rst", help="file to write the documentation's table to")
    arguments = parser.parse_args()
    # Posteriors collapse for large beta, which the table shows.
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    print(describe_machine())
    show(report(arguments.draws), ["<36", ">14", ">17", ">8", ">8"], "meaning.py", arguments.rst)


if __name__ == "__main__":
    main()
