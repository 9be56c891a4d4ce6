"""Autoencoders on raw tables with categories and missing cells, compared with simple models.

There are six tables, each printed with its caption. Seconds are processor time.

- `identities`: figures whose exact values are known. The start of a linear autoencoder is compared
  with multiple correspondence analysis (titanic's categories) and with factor analysis of mixed
  data (its categories and numbers), both on complete rows and by a singular value decomposition.
  "angle" is the largest angle between the two subspaces of three components. "variances" is the
  largest relative error of the variances of the components. "sum of probabilities" is that of all
  rows that four columns of titanic can have. "coverage" is the share of hidden cells of a linear
  Gaussian table within the 90 % intervals of 200 draws of `impute`.
- `imputation`: 20 % of the cells of each column hidden in six standardized tables of 1,500 rows at
  most. "At random": a random half of the columns is complete, and the chance that a cell of another
  column is hidden grows with the cell of a complete column. "Not at random": the chance grows with
  the cell itself. The error is the root of the mean square over hidden cells, as the mean over
  tables.
- `adult`: 4,000 rows of Adult with 20 % of the observed cells hidden. "error" is the root of the
  mean square over hidden numbers, divided by the deviations of their columns. "accuracy" is that of
  hidden categories.
- `synthetic`: rows drawn from models of 10,000 rows of Adult, compared with 10,000 held-out rows,
  and the 10,000 rows themselves in the first line. "income" is the AUC on held-out rows of boosted
  trees that predict the income and are trained on drawn rows. "drawn or real" is the AUC of boosted
  trees that distinguish drawn rows from held-out ones (.5 is best). Rows drawn by skae have no
  missing cells, and 7.5 % of the real ones have some, which these trees notice. For TVAE, a missing
  category is a level of its own. "nearest" is the distance of 2,000 drawn rows to the nearest
  training row (numbers are divided by the deviation of the column, each different category adds 1
  to the squared distance), as 5 % quantile and median. "copies" is the share of drawn rows that are
  in the training rows. In the first line, these three figures are those of held-out rows.
- `codes`: the codes of the default autoencoder and of PCA after one-hot encoding, on 5,000 rows at
  most and with the same number of components: the rounded root of the number of columns after
  one-hot encoding. Codes are standardized for LogisticRegression or Ridge. Scores are means over
  folds, and the difference has the standard error of paired differences. "categories" is the share
  of categories of held-out rows that the reconstruction has. Columns left out are titanic's
  "alive", which is the target in words, the "total" of taxis, which contains the target "tip", and
  the "name" of mpg, which differs in most rows.
- `speed`: the default autoencoder and PCA after one-hot encoding with the same number of
  components, on 20,000 rows of Adult. Fits run in turns.

Run `OMP_NUM_THREADS=1 python examples/benchmarks/mixed.py --data DIR [--only TABLE] [--splits 5]
[--rst FOLDER]`. DIR holds raw tables as `mixed/*.csv.gz` and tables of numbers as `tabular/*.npz`
with a key `X`. The package ctgan is used for the line of TVAE if it is installed.
"""

import argparse
import itertools
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from _machine import describe_machine
from _mixed_data import (
    MIXED_METHODS,
    NUMERIC_METHODS,
    NUMERIC_TABLES,
    PATTERNS,
    OneHotPCA,
    as_categories,
    category_accuracy,
    category_names,
    hide,
    n_encoded,
    number_names,
    read_frame,
    read_numbers,
)
from _table import show
from scipy.linalg import subspace_angles
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer, log_loss, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import timed

from skae import (
    Autoencoder,
    SparseAutoencoder,
    VariationalAutoencoder,
    VectorQuantizedAutoencoder,
    WassersteinAutoencoder,
)

LINEAR = {"hidden_layer_sizes": (), "max_epochs": 0, "early_stopping": False, "random_state": 0}

AUTOENCODERS = (
    Autoencoder,
    SparseAutoencoder,
    WassersteinAutoencoder,
    VariationalAutoencoder,
    VectorQuantizedAutoencoder,
)

PREDICTIONS = {
    "adult": ("income", [], "roc_auc"),
    "titanic": ("survived", ["alive"], "roc_auc"),
    "german": ("bad", [], "roc_auc"),
    "imports": ("price", [], "r2"),
    "mpg": ("mpg", ["name"], "r2"),
    "penguins": ("species", [], "accuracy"),
    "taxis": ("tip", ["total"], "r2"),
}
"""Target, columns left out, and score of each table in `codes`."""


def correspondences(frame, k):
    """Return the row factors of multiple correspondence analysis, from their definition."""
    onehots = pd.get_dummies(frame).to_numpy(dtype=float)
    table = onehots / onehots.sum()
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    expected = np.outer(rows, columns)
    left, values, _ = np.linalg.svd((table - expected) / np.sqrt(expected), full_matrices=False)
    # Its metric divides by the number of columns, that of mixed data does not.
    return (left * values)[:, :k] * np.sqrt(frame.shape[1] / rows[0])


def mixed_factors(frame, k):
    """Return the row factors of factor analysis of mixed data, from their definition."""
    numbers, onehots = frame.select_dtypes("number"), pd.get_dummies(frame[category_names(frame)])
    share = onehots.mean()
    parts = (numbers - numbers.mean()) / numbers.std(ddof=0), (onehots - share) / share**0.5
    left, values, _ = np.linalg.svd(np.hstack(parts).astype(float), full_matrices=False)
    return (left * values)[:, :k]


def coverage(model):
    """Return the share of hidden cells within the 90 % intervals of draws."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(1500, 6))
    hidden = hide(X, "completely at random")
    table = np.where(hidden, np.nan, X)
    drawn = np.stack(model.fit(table).impute(table, n_draws=200, random_state=0))
    low, high = np.quantile(drawn[:, hidden], [0.05, 0.95], axis=0)
    return ((low <= X[hidden]) & (X[hidden] <= high)).mean()


def identities(arguments):
    yield "Figures with known values, Titanic and a linear Gaussian table"
    yield "figure", "model", "exact", "measured"
    titanic = read_frame(arguments.data, "titanic")
    titanic = titanic.astype({"survived": str, "alone": str, "adult_male": str})
    names = ["survived", "class", "sex", "embarked", "alone"]
    for method, factors, columns in (
        ("MCA", correspondences, names),
        ("FAMD", mixed_factors, [*names, "age", "fare", "sibsp", "parch"]),
    ):
        frame = titanic[columns].dropna()
        codes = Autoencoder(3, precision="float64", **LINEAR).fit(frame).transform(frame)
        expected = factors(frame, 3)
        angle = subspace_angles(codes - codes.mean(axis=0), expected).max()
        variances = np.sort(codes.var(axis=0))[::-1] / expected.var(axis=0)
        yield f"{method}, angle", "Autoencoder, linear", "0", f"{angle:.0e}"
        error = np.abs(variances - 1).max()
        yield f"{method}, variances", "Autoencoder, linear", "0", f"{error:.0e}"
    frame = titanic[names[:4]].dropna()
    rows = itertools.product(*(frame[name].unique() for name in frame))
    rows = pd.DataFrame(rows, columns=frame.columns)
    for kind in AUTOENCODERS:
        total = np.exp(kind(random_state=0).fit(frame).score_samples(rows)).sum()
        yield "sum of probabilities", kind.__name__, "1", f"{total:.3f}"
    for name, model in {
        "Autoencoder, linear": Autoencoder(2, hidden_layer_sizes=(), random_state=0),
        "VariationalAutoencoder": VariationalAutoencoder(2, random_state=0),
    }.items():
        yield "coverage", name, ".9", f"{coverage(model):.3f}"


def imputation(arguments):
    yield "20 % of the cells of six tables hidden: error, mean seconds for a table"
    yield "method", *PATTERNS, "seconds"
    tables = [read_numbers(arguments.data, name) for name in NUMERIC_TABLES]
    for method, fill in NUMERIC_METHODS.items():
        errors, seconds = [], []
        for X, pattern in itertools.product(tables, PATTERNS):
            hidden = hide(X, pattern)
            table = np.where(hidden, np.nan, X)
            filled, time = timed(partial(fill, table))
            errors.append(((filled - X)[hidden] ** 2).mean() ** 0.5)
            seconds.append(time)
        means = np.reshape(errors, (len(tables), -1)).mean(axis=0)
        yield method, *(f"{error:.3f}" for error in means), f"{np.mean(seconds):.2f}"


def adult(arguments):
    yield "20 % of Adult's observed cells hidden, 4,000 rows: means over 3 draws"
    yield "method", "error of numbers", "accuracy of categories", "seconds"
    figures = {method: [] for method in MIXED_METHODS}
    for seed, (method, fill) in itertools.product(range(3), MIXED_METHODS.items()):
        X = read_frame(arguments.data, "adult", 4000, seed)
        hidden = hide(X, "completely at random", seed=seed) & X.notna().to_numpy()
        filled, seconds = timed(partial(fill, X.mask(hidden)))
        hidden = pd.DataFrame(hidden, columns=X.columns)
        names, others = number_names(X), category_names(X)
        errors = (filled[names].astype(float) - X[names]) / X[names].std(ddof=0)
        accuracy = (filled[others] == X[others]).to_numpy()[hidden[others]].mean()
        error = (errors.to_numpy()[hidden[names]] ** 2).mean() ** 0.5
        figures[method].append((error, accuracy, seconds))
    for method, values in figures.items():
        error, accuracy, seconds = np.mean(values, axis=0)
        yield method, f"{error:.3f}", f"{accuracy:.3f}", f"{seconds:.1f}"


def drawn_rows(kind, train):
    """Fit an autoencoder and draw as many rows."""
    return kind(random_state=0).fit(train).sample(len(train), random_state=0)


def tvae_rows(train):
    """Fit the TVAE of ctgan and draw as many rows. Missing categories are a level."""
    from ctgan import TVAE

    model = TVAE()
    model.set_random_state(0)
    names = category_names(train)
    model.fit(train.fillna(dict.fromkeys(names, "missing")), discrete_columns=names)
    drawn = model.sample(len(train))
    return drawn.assign(**drawn[names].replace("missing", np.nan))


def boosted_auc(train, y, test, y_test):
    """Return the AUC of boosted trees on test rows."""
    both = as_categories(pd.concat([train, test], ignore_index=True))
    model = HistGradientBoostingClassifier(random_state=0).fit(both[: len(train)], y)
    return roc_auc_score(y_test, model.predict_proba(both[len(train) :])[:, 1])


def distances(rows, train):
    """Return the distances of rows to the nearest training row."""
    names = category_names(train)
    both = pd.concat([train, rows], ignore_index=True)
    onehots = pd.get_dummies(both[names], dummy_na=True).to_numpy(dtype=float)
    numbers = both.drop(columns=names) / train.drop(columns=names).std(ddof=0)
    table = np.hstack([numbers, onehots / 2**0.5])
    search = NearestNeighbors(n_neighbors=1).fit(table[: len(train)])
    return search.kneighbors(table[len(train) :])[0].ravel()


def synthetic(arguments):
    yield "Rows drawn from models of 10,000 rows of Adult"
    yield "rows", "income", "drawn or real", "nearest, 5 %", "median", "copies, %", "seconds"
    frame = read_frame(arguments.data, "adult")
    train, test = (part.reset_index(drop=True) for part in (frame[:10000], frame[10000:]))
    known = set(train.fillna("missing").itertuples(index=False, name=None))

    def figures(drawn, others):
        """`others` are compared with the training rows in distance."""
        label = "income"
        income = boosted_auc(
            drawn.drop(columns=label), drawn[label], test.drop(columns=label), test[label]
        )
        both = pd.concat([drawn, test], ignore_index=True)
        real = np.repeat([0, 1], [len(drawn), len(test)])
        parts = train_test_split(both, real, test_size=0.5, stratify=real, random_state=0)
        near = distances(others[:2000], train)
        rows = others.fillna("missing").itertuples(index=False, name=None)
        yield f"{income:.3f}"
        yield f"{boosted_auc(parts[0], parts[2], parts[1], parts[3]):.3f}"
        yield f"{np.quantile(near, 0.05):.2f}"
        yield f"{np.median(near):.2f}"
        yield f"{100 * np.mean([row in known for row in rows]):.2f}"

    yield "training rows", *figures(train, test), "-"
    for name, draw in {
        "Autoencoder": partial(drawn_rows, Autoencoder),
        "VariationalAutoencoder": partial(drawn_rows, VariationalAutoencoder),
        "TVAE of ctgan": tvae_rows,
    }.items():
        try:
            drawn, seconds = timed(partial(draw, train))
        except ModuleNotFoundError:
            yield name, "not installed", *5 * "-"
        else:
            yield name, *figures(drawn, drawn), f"{seconds:.0f}"


def codes(arguments):
    yield (
        f"Codes as features, means over {arguments.splits} folds: autoencoder / PCA of one-hots, "
        "paired difference ± standard error"
    )
    yield "table", "components", "score", "skae / PCA", "difference", "log-loss", "categories"
    for name, (target, dropped, scoring) in PREDICTIONS.items():
        frame = read_frame(arguments.data, name, 5000)
        X, y = frame.drop(columns=[target, *dropped]), frame[target]
        k = round(n_encoded(X) ** 0.5)
        classes = scoring != "r2"
        folds = (StratifiedKFold if classes else KFold)(
            arguments.splits, shuffle=True, random_state=0
        )
        scorer, figures = get_scorer(scoring), []
        for train, test in folds.split(X, y):
            held_out, y_test = X.iloc[test], y.iloc[test]
            for model in (Autoencoder(k, random_state=0), OneHotPCA(k)):
                model.fit(X.iloc[train])
                predictor = LogisticRegression(max_iter=1000) if classes else Ridge()
                predictor = make_pipeline(StandardScaler(), predictor)
                predictor.fit(model.transform(X.iloc[train]), y.iloc[train])
                features = model.transform(held_out)
                loss = log_loss(y_test, predictor.predict_proba(features)) if classes else np.nan
                accuracy = category_accuracy(held_out, model.reconstruct(held_out))
                figures.append((scorer(predictor, features, y_test), loss, accuracy))
        figures = np.reshape(figures, (arguments.splits, 2, 3))
        score, loss, accuracy = (
            f"{ours:.3f} / {theirs:.3f}" for ours, theirs in figures.mean(axis=0).T
        )
        gains = figures[:, 0, 0] - figures[:, 1, 0]
        difference = f"{gains.mean():+.3f} ± {gains.std(ddof=1) / len(gains) ** 0.5:.3f}"
        yield name, str(k), scoring, score, difference, loss if classes else "-", accuracy


def speed(arguments):
    yield "Adult, 20,000 x 15 cells: median of 3 turns"
    yield "model", "components", "fit, s", "transform, rows/s", "score_samples, s"
    X = read_frame(arguments.data, "adult")
    Autoencoder(random_state=0, max_epochs=1).fit(X[:500])  # the first fit also imports modules
    k = Autoencoder(**LINEAR).fit(X).n_components_
    models = {"Autoencoder": Autoencoder(random_state=0), "PCA of one-hots": OneHotPCA(k)}
    figures = {name: [] for name in models}
    for _, (name, model) in itertools.product(range(3), models.items()):
        calls = (model.fit, model.transform, model.score_samples)
        figures[name].append([timed(partial(call, X))[1] for call in calls])
    for name, seconds in figures.items():
        fit, transform, score = np.median(seconds, axis=0)
        yield name, str(k), f"{fit:.2f}", f"{len(X) / transform:,.0f}", f"{score:.2f}"


TABLES = {
    "identities": (identities, ("<22", "<28", ">7", ">10")),
    "imputation": (imputation, ("<33", ">22", ">11", ">15", ">9")),
    "adult": (adult, ("<33", ">18", ">24", ">9")),
    "synthetic": (synthetic, ("<24", ">14", ">15", ">14", ">8", ">11", ">9")),
    "codes": (codes, ("<10", ">11", ">10", ">16", ">18", ">16", ">16")),
    "speed": (speed, ("<17", ">11", ">9", ">19", ">18")),
}


def main():
    """Print the tables and write them if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the raw tables")
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("--splits", type=int, default=5, help="number of folds in `codes`")
    parser.add_argument("--rst", metavar="FOLDER", help="where to write the tables for the docs")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(describe_machine())
    for name, (table, formats) in TABLES.items():
        if arguments.only in (None, name):
            rst = arguments.rst and Path(arguments.rst) / f"mixed_{name}_table.rst"
            show(table(arguments), formats, "mixed.py", rst)


if __name__ == "__main__":
    main()
