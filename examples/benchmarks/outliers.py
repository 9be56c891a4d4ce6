"""Outlier detectors on all data sets of a folder.

The folder DIR contains `.npz` files with rows `X` and labels `y`, which are 1 for outliers and 0
for normal rows. The detectors have their default parameters, except for two: "PCA reconstruction"
has as many components as the rounded square root of the number of columns, and
AutoencoderOutlierDetector has `trim=0` for novelty detection. AutoencoderOutlierDetector receives
the original columns, the others standardized ones.

There are two tasks. For outlier detection, the detectors are fitted to all rows without labels and
score the same rows. For novelty detection (`--novelty`), they are fitted to half of the normal rows
and score the other half and the outliers.

The columns of the table are:

- AUROC and AP: area under the ROC curve and average precision, means over data sets and seeds;
- sd: standard deviation of AUROC over seeds, mean over data sets;
- rank: rank by AUROC among the detectors, mean over data sets; 1 is the best;
- p: p-value of Wilcoxon's signed-rank test over data sets, which compares AUROC with that of the
  first detector;
- seconds: median time of a fit.

PyOD's detectors are left out if PyOD is not installed.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/outliers.py --data DIR [--novelty] [--seeds 3]
[--only NAME ...] [--sets NAME ...] [--rst FILE]`.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import aligned, write_rst
from scipy.stats import rankdata, wilcoxon
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from skae import AutoencoderOutlierDetector

HEADER = ("detector", "AUROC", "AP", "sd", "rank", "p", "seconds")
FORMATS = ("<28", ">7", ">7", ">7", ">6", ">8", ">9")


class PCAReconstruction(PCA):
    """Squared error of PCA with as many components as the rounded root of the number of columns."""

    def fit(self, X):
        self.n_components = max(1, round(X.shape[1] ** 0.5))
        return super().fit(X)

    def score_samples(self, X):
        return -((self.inverse_transform(self.transform(X)) - X) ** 2).sum(axis=1)


class PyODDetector:
    """A detector of PyOD with the sign of scikit-learn's scores.

    Training rows have the scores of the fit, in which no row is its own neighbor.
    """

    def __init__(self, detector):
        self.detector = detector

    def fit(self, X):
        self.X = X
        self.detector.fit(X)
        return self

    def score_samples(self, X):
        is_training = X is self.X
        return -(
            self.detector.decision_scores_ if is_training else self.detector.decision_function(X)
        )


class TrainingLocalOutlierFactor(LocalOutlierFactor):
    """LocalOutlierFactor that returns the scores of the fit for training rows."""

    def fit(self, X):
        self.X = X
        return super().fit(X)

    def score_samples(self, X):
        return self.negative_outlier_factor_ if X is self.X else super().score_samples(X)


def detectors(novelty):
    """Return detectors by name: factory from a seed, uses original columns, is random."""
    clean = {"trim": 0} if novelty else {}
    detectors_by_name = {
        "AutoencoderOutlierDetector": (
            lambda seed: AutoencoderOutlierDetector(**clean, random_state=seed),
            True,
            True,
        ),
        "IsolationForest": (lambda seed: IsolationForest(random_state=seed), False, True),
        "LocalOutlierFactor": (lambda seed: TrainingLocalOutlierFactor(novelty=True), False, False),
        "PCA reconstruction": (lambda seed: PCAReconstruction(), False, False),
    }
    try:
        from pyod.models.auto_encoder import AutoEncoder
        from pyod.models.ecod import ECOD
        from pyod.models.knn import KNN
        from pyod.models.vae import VAE
    except ImportError:
        print("PyOD is not installed: its detectors are left out.")
        return detectors_by_name
    return detectors_by_name | {
        "PyOD AutoEncoder": (
            lambda seed: PyODDetector(AutoEncoder(random_state=seed, verbose=0)),
            False,
            True,
        ),
        "PyOD VAE": (lambda seed: PyODDetector(VAE(random_state=seed, verbose=0)), False, True),
        "PyOD ECOD": (lambda seed: PyODDetector(ECOD()), False, False),
        "PyOD KNN": (lambda seed: PyODDetector(KNN()), False, False),
    }


def split(X, y, seed, novelty):
    """Return training rows, and rows to score with their labels."""
    if not novelty:
        return X, X, y
    normal = np.random.RandomState(seed).permutation(np.flatnonzero(y == 0))
    half = len(normal) // 2
    rest = np.r_[normal[half:], np.flatnonzero(y == 1)]
    return X[normal[:half]], X[rest], y[rest]


def measure(make, raw, X, y, seed, novelty):
    """Return the area under the ROC curve, the average precision, and seconds of the fit."""
    train, test, labels = split(X, y, seed, novelty)
    if not raw:
        scaler = StandardScaler().fit(train)
        scaled = scaler.transform(train)
        test = scaled if test is train else scaler.transform(test)
        train = scaled
    detector = make(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        detector.fit(train)
        seconds = time.perf_counter() - start
        outlyingness = -np.asarray(detector.score_samples(test), dtype=np.float64)
    outlyingness = np.nan_to_num(outlyingness, nan=1e300, posinf=1e300, neginf=-1e300)
    return (
        roc_auc_score(labels, outlyingness),
        average_precision_score(labels, outlyingness),
        seconds,
    )


def table(results):
    """Yield the rows of the table, from arrays (sets, seeds, measures) by detector."""
    first, *_ = results
    areas = {name: values[..., 0].mean(axis=1) for name, values in results.items()}
    ranks = rankdata([-area for area in areas.values()], axis=0).mean(axis=1)
    for (name, values), rank in zip(results.items(), ranks, strict=True):
        paired = name != first and len(areas[name]) > 1
        p = wilcoxon(areas[first], areas[name]).pvalue if paired else np.nan
        yield (
            name,
            f"{areas[name].mean():.3f}",
            f"{values[..., 1].mean():.3f}",
            f"{values[..., 0].std(axis=1, ddof=1).mean():.3f}" if values.shape[1] > 1 else "-",
            f"{rank:.2f}",
            "-" if np.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}",
            f"{np.median(values[..., 2]):.2f}",
        )


def main():
    """Print the table and write it if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of .npz files")
    parser.add_argument("--novelty", action="store_true", help="train on half of the normal rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of the detectors to run")
    parser.add_argument("--sets", nargs="*", help="names of the sets")
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    print(describe_machine())
    files = sorted(arguments.data.glob("*.npz"))
    files = [file for file in files if not arguments.sets or file.stem in arguments.sets]
    if not files:
        parser.error(f"no .npz file to use in {arguments.data}")
    results = {}
    for name, (make, raw, is_random) in detectors(arguments.novelty).items():
        if arguments.only and name not in arguments.only:
            continue
        # The seed changes the rows for novelty. Otherwise it changes random detectors only.
        seeds = range(arguments.seeds if is_random or arguments.novelty else 1)
        results[name] = []
        for file in files:
            with np.load(file, allow_pickle=False) as data:
                X, y = data["X"].astype(np.float64), data["y"]
            figures = [measure(make, raw, X, y, seed, arguments.novelty) for seed in seeds]
            results[name].append(figures)
            area, precision, seconds = np.mean(figures, axis=0)
            print(f"  {name} {file.stem}: {area:.3f} {precision:.3f} {seconds:.2f} s", flush=True)
        results[name] = np.array(results[name])
    rows = list(table(results))
    for row in (HEADER, *rows):
        print(aligned(row, FORMATS))
    if arguments.rst:
        task = "Novelty detection" if arguments.novelty else "Outlier detection"
        means = f"means over {len(files)} data sets and {arguments.seeds} seeds"
        caption = f"{task}: {means}, median seconds"
        write_rst(arguments.rst, "outliers.py", caption, HEADER, rows)


if __name__ == "__main__":
    main()
