"""What fair codes hide and keep, measured by classifiers that are trained on codes of other rows.

adult: for each seed, 10,000 rows of the official training part of Adult and 5,000 of its test part;
s is sex, y a high income. german: German credit, 700 and 300 rows; s is male, y good credit.
Numbers are standardized and categories one-hot encoded. Adult's columns of sex are left out.
German's status columns, which reveal sex, are kept. Three tables are compared: the original rows,
codes of FairAutoencoder with its defaults, and codes that were trained with y. A random forest with
scikit-learn's defaults predicts s: the measures are its accuracy and area under the ROC curve
(AUC). A logistic regression predicts y: the measures are its accuracy and the demographic-parity
gap, the difference between the groups in how often it predicts 1.

digits: conditional draws of scikit-learn's digits, split 70/30. A support vector machine classifies
2,000 draws, 200 for each class, and held-out rows that were translated to another class. For each
seed, the table shows the share of draws that are assigned to the class of their condition, the same
share for the worst class, the share of translated rows that are assigned to their new class, and
the share of held-out rows whose own class has the highest density.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/fair.py --data DIR [--only SECTION ...]
[--seeds N] [--rst DIR]`. The data folder holds `adult.npz` and `german.npz`.
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
    """Return the cells, s and y of the training rows and of the test rows."""
    data = np.load(folder / "adult.npz", allow_pickle=False)
    rng = np.random.default_rng(seed)
    train = rng.choice(np.flatnonzero(data["train"]), 10_000, replace=False)
    test = rng.choice(np.flatnonzero(~data["train"]), 5_000, replace=False)
    kept = [not name.startswith("sex_") for name in data["cat_names"]]
    return split(data["X_num"], data["X_cat"][:, kept], data["sex"], data["y"], train, test)


def german(folder, seed):
    """Return the cells, s and y of the training rows and of the test rows."""
    data = np.load(folder / "german.npz", allow_pickle=False)
    train, test = np.split(np.random.default_rng(seed).permutation(1000), [700])
    return split(data["X_num"], data["X_cat"], data["male"], data["y"], train, test)


def split(numbers, categories, s, y, train, test):
    """Return both parts, with numbers standardized by the training rows."""
    numbers = numbers.astype(float)
    cells = np.hstack([StandardScaler().fit(numbers[train]).transform(numbers), categories])
    return [(cells[part], s[part].astype(int), y[part].astype(int)) for part in (train, test)]


def evaluate(train, test):
    """Return measures of classifiers that are trained on one table and tested on another.

    These are the share of the larger group, accuracy and AUC for s, accuracy for y, and the gap.
    """
    (Z, s, y), (Z_test, s_test, y_test) = train, test
    forest = RandomForestClassifier(random_state=0).fit(Z, s)
    model = LogisticRegression(max_iter=2000).fit(Z, y)
    predicted = model.predict(Z_test)
    return (
        max(s_test.mean(), 1 - s_test.mean()),
        forest.score(Z_test, s_test),
        roc_auc_score(s_test, forest.predict_proba(Z_test)[:, 1]),
        (predicted == y_test).mean(),
        abs(predicted[s_test == 1].mean() - predicted[s_test == 0].mean()),
    )


def audit_table(name, load):
    """Return a function that yields the caption, the header and the rows of a table."""

    def table(folder, n_seeds):
        yield f"{name}: s predicted by a forest and y by a logistic regression, for held-out rows"
        yield "seed", "input", "s, base", "s, accuracy", "s, AUC", "y, accuracy", "gap", "seconds"
        for seed in range(n_seeds):
            (X, s, y), (X_test, s_test, y_test) = load(folder, seed)
            for table_name, target in (("rows", None), ("code", None), ("code, with y", y)):
                start, Z, Z_test = time.perf_counter(), X, X_test
                if table_name != "rows":
                    model = FairAutoencoder(sensitive=-1, random_state=seed)
                    model.fit(np.column_stack([X, s]), target)
                    Z, Z_test = (
                        model.transform(np.column_stack(part))
                        for part in ((X, s), (X_test, s_test))
                    )
                seconds = time.perf_counter() - start
                measures = evaluate((Z, s, y), (Z_test, s_test, y_test))
                yield (
                    str(seed),
                    table_name,
                    *[f"{measure:.3f}" for measure in measures],
                    f"{seconds:.0f}",
                )

    return table


def digits(folder, n_seeds):
    """Yield the caption, the header and the rows of the table of conditional draws."""
    pixels, digit = load_digits(return_X_y=True)
    train, test, y, y_test = train_test_split(
        pixels, digit, test_size=0.3, stratify=digit, random_state=0
    )
    classifier = SVC(C=10).fit(pixels, digit)
    classes, others = np.repeat(np.arange(10), 200), (y_test + 1 + np.arange(len(test)) % 9) % 10
    yield "Digits with their class as the condition: shares of rows assigned to the right class"
    yield "seed", "n_components", "draws", "worst class", "translated", "by density", "seconds"
    for seed in range(n_seeds):
        for k in (4, 8, 16):
            start = time.perf_counter()
            model = ConditionalVariationalAutoencoder(k, condition=-1, random_state=seed)
            model.fit(np.column_stack([train, y]))
            seconds = time.perf_counter() - start
            drawn = model.sample(2000, condition=classes, random_state=seed)[:, :-1]
            correct = (classifier.predict(drawn) == classes).reshape(10, 200).mean(axis=1)
            translated = model.translate(np.column_stack([test, y_test]), others)[:, :-1]
            densities = [
                model.score_samples(np.column_stack([test, np.full(len(test), c)]))
                for c in range(10)
            ]
            shares = (
                correct.mean(),
                correct.min(),
                (classifier.predict(translated) == others).mean(),
                (np.argmax(densities, axis=0) == y_test).mean(),
            )
            yield str(seed), str(k), *[f"{share:.3f}" for share in shares], f"{seconds:.0f}"


AUDIT_FORMATS = (">4", ">15", ">8", ">13", ">8", ">13", ">7", ">9")
SECTIONS = {
    "digits": (digits, "conditional_digits_table.rst", (">4", *[">14"] * 6)),
    "adult": (audit_table("Adult", adult), "fair_adult_table.rst", AUDIT_FORMATS),
    "german": (audit_table("German credit", german), "fair_german_table.rst", AUDIT_FORMATS),
}
"""Sections by name: a function that yields the table, its file, and formats of columns."""


def main():
    """Print the tables and write them if `--rst` is given."""
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
