"""
Comparison of PCA and an autoencoder
====================================

This script compares PCA and an autoencoder on scikit-learn's digits and breast-cancer data. For
each data set, a grid search over a classification pipeline selects PCA or the autoencoder and the
number of components. A table then shows, for held-out rows, the squared error, the log-density and
the accuracy of a classifier of the codes. Below the table are the held-out rows with the smallest
log-density. The script writes its figure to `quickstart.png`.
"""

import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skae import Autoencoder


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
    """Compare the models on both data sets, and draw results for the digits."""
    start = time.perf_counter()
    report("breast cancer")
    autoencoder, train, test, y_test = report("digits")
    draw(autoencoder, train, test, y_test)
    print(f"{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
