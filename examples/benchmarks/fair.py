"""What fair codes hide and keep, as probes tell that are trained on codes of other rows.

adult: for each seed, 10,000 rows of the official training part of Adult and 5,000 of its test part;
s is sex, y a high income. german: German credit, 700 and 300 rows; s is male, y good credit.
Numbers are standardised, categories one-hot; Adult's columns of sex are left out, German's status
columns, which give sex away, are not. Of each table, rows as they are and codes of FairAutoencoder
at its defaults, without y and with it. A random forest of scikit-learn's defaults tells s:
accuracy and area under the ROC curve (AUC). Logistic regression tells y: accuracy, and the
demographic-parity gap, the difference between the groups in how often it says 1.

digits: conditional draws of scikit-learn's digits, split 70/30. Per seed: share of 2,000 draws, and
of the worst class's 200, that a support vector machine takes for the class asked for; share of
held-out rows translated to another class that it takes for that; share of held-out rows whose own
class has the highest density.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/fair.py --data DIR [--only SECTION ...]
[--seeds N] [--rst DIR]`, DIR holding `adult.npz` and `german.npz`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import show
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skae import ConditionalVariationalAutoencoder, FairAutoencoder


def adult(folder, seed):
    """Cells, s and y of the training and of the test rows."""
    data = np.load(folder / "adult.npz", allow_pickle=False)
    rng = np.random.default_rng(seed)
    train = rng.choice(np.flatnonzero(data["train"]), 10_000, replace=False)
    test = rng.choice(np.flatnonzero(~data["train"]), 5_000, replace=False)
    kept = [not name.startswith("sex_") for name in data["cat_names"]]
    return split(data["X_num"], data["X_cat"][:, kept], data["sex"], data["y"], train, test)


def german(folder, seed):
    """Cells, s and y of the training and of the test rows."""
    data = np.load(folder / "german.npz", allow_pickle=False)
    train, test = np.split(np.random.default_rng(seed).permutation(1000), [700])
    return split(data["X_num"], data["X_cat"], data["male"], data["y"], train, test)


def split(numbers, categories, s, y, train, test):
    """Both parts, numbers in units of the training rows."""
    numbers = numbers.astype(float)
    cells = np.hstack([StandardScaler().fit(numbers[train]).transform(numbers), categories])
    return [(cells[part], s[part].astype(int), y[part].astype(int)) for part in (train, test)]


def probed(train, test):
    """What probes trained on one table tell of another."""
    (Z, s, y), (Z_test, s_test, y_test) = train, test
    forest = RandomForestClassifier(random_state=0).fit(Z, s)
    model = LogisticRegression(max_iter=2000).fit(Z, y)
    says = model.predict(Z_test)
    return (
        max(s_test.mean(), 1 - s_test.mean()),
        forest.score(Z_test, s_test),
        roc_auc_score(s_test, forest.predict_proba(Z_test)[:, 1]),
        (says == y_test).mean(),
        abs(says[s_test == 1].mean() - says[s_test == 0].mean()),
    )


def audits(name, load):
    """A section: how to get its caption, header and rows."""

    def table(folder, n_seeds):
        yield f"{name}: s told by a forest, y by logistic regression"
        yield "seed", "table", "s, base", "s, accuracy", "s, AUC", "y, accuracy", "gap", "seconds"
        for seed in range(n_seeds):
            (X, s, y), (X_test, s_test, y_test) = load(folder, seed)
            for what, target in (("rows", None), ("code", None), ("code, y given", y)):
                start, Z, Z_test = time.perf_counter(), X, X_test
                if what != "rows":
                    model = FairAutoencoder(sensitive=-1, random_state=seed)
                    model.fit(np.column_stack([X, s]), target)
                    Z, Z_test = (
                        model.transform(np.column_stack(part))
                        for part in ((X, s), (X_test, s_test))
                    )
                seconds = time.perf_counter() - start
                told = probed((Z, s, y), (Z_test, s_test, y_test))
                yield str(seed), what, *[f"{t:.3f}" for t in told], f"{seconds:.0f}"

    return table


def digits(folder, n_seeds):
    """Caption, header and rows of the table of conditional draws."""
    pixels, digit = load_digits(return_X_y=True)
    train, test, y, y_test = train_test_split(
        pixels, digit, test_size=0.3, stratify=digit, random_state=0
    )
    judge = SVC(C=10).fit(pixels, digit)
    asked, others = np.repeat(np.arange(10), 200), (y_test + 1 + np.arange(len(test)) % 9) % 10
    yield "Digits under their class: shares that another model, or the density, gets right"
    yield "seed", "n_components", "draws", "worst class", "translated", "by density", "seconds"
    for seed in range(n_seeds):
        for k in (4, 8, 16):
            start = time.perf_counter()
            model = ConditionalVariationalAutoencoder(k, condition=-1, random_state=seed)
            model.fit(np.column_stack([train, y]))
            seconds = time.perf_counter() - start
            drawn = model.sample(2000, condition=asked, random_state=seed)[:, :-1]
            right = (judge.predict(drawn) == asked).reshape(10, 200).mean(axis=1)
            moved = model.translate(np.column_stack([test, y_test]), others)[:, :-1]
            densities = [
                model.score_samples(np.column_stack([test, np.full(len(test), c)]))
                for c in range(10)
            ]
            shares = (
                right.mean(),
                right.min(),
                (judge.predict(moved) == others).mean(),
                (np.argmax(densities, axis=0) == y_test).mean(),
            )
            yield str(seed), str(k), *[f"{share:.3f}" for share in shares], f"{seconds:.0f}"


AUDITED = (">4", ">15", ">8", ">13", ">8", ">13", ">7", ">9")
SECTIONS = {
    "digits": (digits, "conditional_digits_table.rst", (">4", *[">14"] * 6)),
    "adult": (audits("Adult", adult), "fair_adult_table.rst", AUDITED),
    "german": (audits("German credit", german), "fair_german_table.rst", AUDITED),
}
"""Section: how to get its table, file for the docs, and formats of columns."""


def main():
    """Print the tables and, if asked to, write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of the two files")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, help="sections to run")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--rst", metavar="DIR", type=Path, help="folder to write the tables to")
    arguments = parser.parse_args()
    print(describe_machine())
    for name in arguments.only or SECTIONS:
        section, file, formats = SECTIONS[name]
        table = section(arguments.data, arguments.seeds)
        show(table, formats, "fair.py", arguments.rst and arguments.rst / file)


if __name__ == "__main__":
    main()
