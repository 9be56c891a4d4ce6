"""Does the log-density of held-out rows select the right number of components?

The rows have 6 normal latent variables. A random network with one layer of tanh units maps them to
30 columns, to which noise is added, at three levels. `GridSearchCV` without `scoring` uses `score`,
the log-density of held-out rows in nats per row. The search compares Autoencoder, PCA and
FactorAnalysis with several values of `n_components`. The script prints the log-density of each
model and value, as the mean over folds, and the value with the largest one for each model.

Run `python examples/benchmarks/capacity.py [--noise .03 .1 .3] [--folds 5] [--sizes 1 ... 12]`.
"""

import argparse
import time

import numpy as np
from _machine import describe_machine
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skae import Autoencoder


def make_rows(noise, seed=0, n=4000, latent=6):
    """Return rows with `latent` latent variables, of standard deviation 1 before noise is added."""
    rng = np.random.RandomState(seed)
    W1 = rng.randn(latent, 40) * 1.5 / np.sqrt(6)
    W2 = rng.randn(40, 30) / np.sqrt(40)
    X = np.tanh(rng.randn(n, latent) @ W1) @ W2
    X /= X.std()
    return X + noise * rng.randn(n, 30)


def main():
    """Print one table per level of noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(range(1, 13)))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(describe_machine())
    for noise in arguments.noise:
        X = make_rows(noise, arguments.seed)
        start = time.perf_counter()
        search = GridSearchCV(
            Pipeline([("reduce", PCA())]),
            {
                "reduce": [PCA(), FactorAnalysis(), Autoencoder(random_state=0)],
                "reduce__n_components": arguments.sizes,
            },
            cv=arguments.folds,
            n_jobs=2,
        ).fit(X)
        results = search.cv_results_
        print(f"\nnoise {noise}: best {search.best_params_}")
        print(f"searched in {time.perf_counter() - start:.0f} s")
        print(f"{'model':<18}" + "".join(f"{size:>8}" for size in arguments.sizes))
        for kind in (PCA, FactorAnalysis, Autoencoder):
            scores = {
                params["reduce__n_components"]: score
                for params, score in zip(results["params"], results["mean_test_score"], strict=True)
                if isinstance(params["reduce"], kind)
            }
            row = "".join(f"{scores[size]:>8.2f}" for size in arguments.sizes)
            print(
                f"{kind.__name__:<18}{row}  picks {max(scores, key=scores.get)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
