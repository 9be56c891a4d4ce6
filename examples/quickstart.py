"""
Comparison of PCA and an autoencoder
====================================

This script compares PCA and an autoencoder on three tables. The first one is a simulated table of
customers, with numbers, categories, dates and missing cells. An autoencoder reads it as it is. For
PCA, the columns are imputed, scaled and encoded first. Each model has three components. The script
compares what they reconstruct and fill on held-out rows, and a classifier of the codes.

The other two are scikit-learn's digits and breast-cancer data. For each of them, a grid search over
a classification pipeline selects PCA or the autoencoder and the number of components. A table then
shows, for held-out rows, the squared error, the log-density and the accuracy of a classifier of the
codes. Below the table are the held-out rows with the smallest log-density. The last table compares
a logistic regression on the columns with one on the columns and the hidden units of an autoencoder.
The script writes its figure to `quickstart.png`.
"""

import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from skae import Autoencoder, AutoencoderFeatures

NUMBERS = ["age", "income", "children", "spent", "since"]
CATEGORIES = ["education", "job", "home", "device"]


def make_customers(n=3000, random_state=0):
    """Simulate a table of customers with missing cells, and which customers buy a product.

    Age and education determine most of the columns. The relations are not linear.
    """
    rng = np.random.default_rng(random_state)
    age, school = 18 + 65 * rng.beta(1.6, 1.8, n), rng.normal(size=n)
    job = np.select(
        [age < 24 + 2 * school, age > 64, school > 0.9, school > 0],
        ["student", "retired", "manager", "office"],
        "service",
    )
    income = 10 + 0.45 * school - 0.0011 * (age - 50) ** 2 - 0.5 * (job == "retired")
    income = np.exp(income + 0.15 * rng.normal(size=n))
    children = rng.poisson(2.2 * np.exp(-(((age - 42) / 10) ** 2)))
    spent = 0.004 * income * (1 + 0.35 * children) * np.exp(0.15 * rng.normal(size=n))
    days = 365 * np.maximum(0.25 * (age - 18) * rng.beta(3, 2, n), 0.05)
    X = pd.DataFrame(
        {
            "age": age.round().astype(int),
            "education": np.select([school > 0.9, school > -0.3], ["university", "college"], "no"),
            "job": job,
            "income": income.round(-2),
            "children": children,
            "home": np.select(
                [age < 26, (income > 25000) & (age > 32)], ["parents", "owned"], "rented"
            ),
            "device": np.where(age + 6 * rng.normal(size=n) < 45, "phone", "desktop"),
            "since": pd.Timestamp("2026-01-01") - pd.to_timedelta(days.round(), "D"),
            "spent": spent.round(2),
        }
    )
    chance = 1 / (1 + np.exp(-(3 * np.cos((age - 42) / 9) + school - 0.5)))
    shares = {"income": 0.15, "education": 0.1, "job": 0.05, "home": 0.1, "spent": 0.05}
    for name, share in shares.items():
        X.loc[rng.random(n) < share, name] = None
    return X, rng.random(n) < chance


def days_since_2000(X):
    """Convert the dates of a table of customers to numbers."""
    return X.assign(since=(X["since"] - pd.Timestamp("2000-01-01")).dt.days.astype(float))


def prepare_customers():
    """Return a transformer that imputes, scales and encodes the columns of a table of customers."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    categories = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(sparse_output=False)
    )
    columns = ColumnTransformer(
        [("numbers", numbers, NUMBERS), ("categories", categories, CATEGORIES)]
    )
    return make_pipeline(FunctionTransformer(days_since_2000), columns)


class Recipe:
    """PCA of a table of customers: the columns are imputed, scaled and encoded first."""

    def __init__(self, n_components):
        self.pipeline = make_pipeline(*prepare_customers(), PCA(n_components))

    def fit(self, X):
        self.pipeline.fit(X)
        return self

    def transform(self, X):
        return self.pipeline.transform(X)

    def reconstruct(self, X):
        """Decode the codes: the largest output of a category is the reconstructed one."""
        columns, pca = self.pipeline[1], self.pipeline[2]
        out = pca.inverse_transform(self.transform(X))
        scaler = columns.named_transformers_["numbers"][-1]
        encoder = columns.named_transformers_["categories"][-1]
        values = np.hstack(
            [
                scaler.inverse_transform(out[:, : len(NUMBERS)]).astype(object),
                encoder.inverse_transform(out[:, len(NUMBERS) :]),
            ]
        )
        return pd.DataFrame(values, X.index, NUMBERS + CATEGORIES)

    impute = reconstruct


def compare_cells(true, found, cells, scale):
    """Return the standardized error of the numbers and the accuracy of the categories in `cells`.

    `true` and `found` are tables, whose dates are numbers, and `cells` is a table of booleans.
    """
    squares = [
        ((true[c] - found[c].astype(float)) / scale[c])[cells[c]].to_numpy() ** 2 for c in NUMBERS
    ]
    equal = [(true[c] == found[c])[cells[c]].to_numpy() for c in CATEGORIES]
    return np.sqrt(np.concatenate(squares).mean()), np.concatenate(equal).mean()


def report_customers():
    """Print what both models reconstruct and fill in the table of customers."""
    X, y = make_customers()
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
    hidden = test.notna() & (np.random.default_rng(1).random(test.shape) < 0.15)
    scale, true = days_since_2000(train)[NUMBERS].std(), days_since_2000(test)
    print(
        f"customers: {X.shape[0]} rows, {X.shape[1]} columns, {X.isna().mean().mean():.0%}", end=""
    )
    print(" of the cells are missing")
    print("3 components, held-out rows; errors in standard deviations of the columns:")
    header = ("model", "numbers", "categories", "filled numbers", "categories", "buyers", "seconds")
    print(("{:<14}" + "{:>16}" * 6).format(*header))
    for name, model in (
        ("recipe + PCA", Recipe(3)),
        ("Autoencoder", Autoencoder(3, random_state=0)),
    ):
        start = time.perf_counter()
        model.fit(train)
        seconds = time.perf_counter() - start
        rebuilt, filled = model.reconstruct(test), model.impute(test.mask(hidden))
        if name == "Autoencoder":
            rebuilt, filled = days_since_2000(rebuilt), days_since_2000(filled)
        results = compare_cells(true, rebuilt, test.notna(), scale)
        results += compare_cells(true, filled, hidden, scale)
        classifier = make_pipeline(StandardScaler(), LogisticRegression())
        classifier.fit(model.transform(train), y_train)
        results += (classifier.score(model.transform(test), y_test), seconds)
        print(f"{name:<14}" + "".join(f"{value:>16.3f}" for value in results))


def scale_pixels(X):
    """Scale pixels from [0, 16] to [0, 1]."""
    return X / 16


DATA = {
    # Pixels share a unit. Standardizing them would amplify those that are almost always blank.
    "digits": (load_digits, FunctionTransformer(scale_pixels), 8),
    "breast cancer": (load_breast_cancer, StandardScaler(), 5),
}


def search(scaler, X, y):
    """Run a grid search over the kind of reducer and its number of components."""
    pipeline = Pipeline(
        [
            ("scale", scaler),
            ("reduce", PCA()),
            ("classify", LogisticRegression(max_iter=2000)),
        ]
    )
    grid = [
        {"reduce": [PCA()], "reduce__n_components": [2, 8, 16]},
        # Fits of 20 epochs instead of the default 100 shorten the search.
        {
            "reduce": [Autoencoder(max_epochs=20, random_state=0)],
            "reduce__n_components": [2, 8, 16],
        },
    ]
    return GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(X, y)


def compare(reducer, train, test, y_train, y_test):
    """Fit a reducer, and return its results on held-out rows and the seconds of the fit.

    The results are the squared error, the log-density, and the accuracy of a logistic regression on
    the codes.
    """
    start = time.perf_counter()
    reducer.fit(train)
    seconds = time.perf_counter() - start
    codes = reducer.transform(test)
    error = ((reducer.inverse_transform(codes) - test) ** 2).sum(axis=1).mean()
    classifier = LogisticRegression(max_iter=5000).fit(reducer.transform(train), y_train)
    return error, reducer.score(test), classifier.score(codes, y_test), seconds


def report(name):
    """Print the results of a data set, and return the autoencoder, rows, and held-out classes."""
    load, scaler, size = DATA[name]
    X, y = load(return_X_y=True)
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    found = search(scaler, train, y_train)
    best = found.best_params_
    print(f"\n{name}: {X.shape[0]} rows, {X.shape[1]} columns")
    print(
        f"Grid search selects {type(best['reduce']).__name__} with {best['reduce__n_components']} "
        f"components: accuracy {found.score(test, y_test):.3f} on held-out rows."
    )
    train, test = scaler.fit_transform(train), scaler.transform(test)
    autoencoder = Autoencoder(size, random_state=0)
    print(f"{size} components, means over held-out rows, log-density in nats per row:")
    print(f"{'model':<14}{'squared error':>15}{'log-density':>14}", end="")
    print(f"{'accuracy':>10}{'seconds':>9}")
    for reducer in (PCA(size), autoencoder):
        error, log_density, accuracy, seconds = compare(reducer, train, test, y_train, y_test)
        print(f"{type(reducer).__name__:<14}{error:>15.3f}{log_density:>14.2f}", end="")
        print(f"{accuracy:>10.3f}{seconds:>9.2f}")
    log_prob = autoencoder.score_samples(test)
    print("Least likely held-out rows:", end=" ")
    print(
        ", ".join(
            f"row {i} (class {y_test[i]}, {log_prob[i]:.0f} nats)" for i in log_prob.argsort()[:3]
        )
        + f"; the median row has {np.median(log_prob):.0f} nats."
    )
    return autoencoder, train, test, y_test


def report_features():
    """Print accuracies of a logistic regression on the columns and on learned features."""
    customers = make_customers()
    cancer = load_breast_cancer(return_X_y=True)
    print("\naccuracy of a logistic regression on held-out rows:")
    print(f"{'data':<16}{'columns':>10}{'columns and hidden units':>26}")
    for name, (X, y), prepare in (
        ("customers", customers, prepare_customers()),
        ("breast cancer", cancer, StandardScaler()),
    ):
        train, test, y_train, y_test = train_test_split(
            X, y, test_size=0.3, random_state=0, stratify=y
        )
        scores = [
            make_pipeline(step, LogisticRegression(max_iter=2000))
            .fit(train, y_train)
            .score(test, y_test)
            for step in (prepare, AutoencoderFeatures(random_state=0))
        ]
        print(f"{name:<16}{scores[0]:>10.3f}{scores[1]:>26.3f}")


def draw(autoencoder, train, test, y):
    """Draw codes and reconstructions of PCA and an autoencoder, and the latter's loss curves."""
    figure = plt.figure(figsize=(11, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.2, 1])
    axes = top.subplots(1, 2)
    flat = Autoencoder(2, random_state=0).fit(train)
    for ax, reducer in zip(axes, (PCA(2).fit(train), flat), strict=True):
        codes = reducer.transform(test)
        dots = ax.scatter(*codes.T, c=y, cmap="tab10", s=10)
        ax.set(title=f"{type(reducer).__name__}: 2 components", xticks=[], yticks=[])
    axes[1].legend(
        *dots.legend_elements(), title="digit", loc="center left", bbox_to_anchor=(1, 0.5)
    )
    left, right = bottom.subfigures(1, 2, width_ratios=[1.6, 1])
    pca = PCA(autoencoder.n_components_).fit(train)
    pictures = {
        "original": test,
        f"PCA({pca.n_components_})": pca.inverse_transform(pca.transform(test)),
        f"Autoencoder({pca.n_components_})": autoencoder.reconstruct(test),
    }
    left.suptitle("Held-out digits, reconstructed from 8 components")
    grid = left.subplots(3, 8)
    for row, (title, images) in zip(grid, pictures.items(), strict=True):
        row[0].set_ylabel(title, rotation=0, ha="right", va="center")
        for ax, image in zip(row, images, strict=False):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    ax = right.subplots()
    epochs = np.arange(1, autoencoder.n_iter_ + 1)
    ax.plot(epochs, autoencoder.loss_curve_, label="training rows")
    ax.plot(epochs, autoencoder.validation_curve_, label="validation rows")
    ax.axvline(autoencoder.best_epoch_, color="gray", ls=":", label="epoch kept")
    ax.set(
        title="Training objective",
        xlabel="epoch",
        ylabel="negative log-likelihood (nats per row)",
    )
    ax.legend()
    figure.savefig("quickstart.png", dpi=110)
    print("\nPicture: quickstart.png")


def main():
    """Compare the models on all data sets, and draw results for the digits."""
    start = time.perf_counter()
    report_customers()
    report("breast cancer")
    autoencoder, train, test, y_test = report("digits")
    report_features()
    draw(autoencoder, train, test, y_test)
    print(f"{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
