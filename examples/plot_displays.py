"""
Displays: training, codes, reconstructions, components and outliers
====================================================================

The displays of skae show how a fitted autoencoder was trained, where its codes lie, how well it
reconstructs rows, what each component means, and why a row is an outlier.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    AttributionDisplay,
    Autoencoder,
    AutoencoderOutlierDetector,
    BiplotDisplay,
    ComponentImportanceDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    OutlierExplanationDisplay,
    ReconstructionDisplay,
    TraversalDisplay,
)
from skae.metrics import explained_variance_ratio

X, digit = load_digits(return_X_y=True)
train, test = X[:1200], X[1200:]
autoencoder = Autoencoder(8, max_epochs=20, random_state=0).fit(train)

# %%
# Both loss curves fall. The curve of the training rows falls further than that of the validation
# rows, which is almost level at the end. The dotted line marks the epoch whose weights are kept.
LossCurveDisplay.from_estimator(autoencoder)
print(f"epoch {autoencoder.best_epoch_} of {autoencoder.n_iter_} is kept")
plt.show()

# %%
# Each dot of the first plot is the code of a held-out digit, which has two components. The second
# plot shows the same rows projected by PCA, which is fitted to these rows. The autoencoder
# separates the 4s from the 6s, while PCA places them in one group. The 5s, the 8s and some of the
# 1s overlap near the center of the autoencoder's codes.
flat = Autoencoder(2, max_epochs=20, random_state=0).fit(train)
LatentSpaceDisplay.from_estimator(flat, test, digit[1200:])
plt.show()

# %%
# Held-out digits are reconstructed from codes of eight numbers. PCA explains less of the variance
# than the autoencoder, although it is fitted to these held-out rows. Its reconstructions are paler,
# for example those of the 5 and of the last 2.
shares = {
    "Autoencoder": explained_variance_ratio(autoencoder, test),
    "PCA": explained_variance_ratio(PCA(8).fit(test), test),
}
print(*(f"{name} explains {share:.0%} of the variance" for name, share in shares.items()), sep="\n")
ReconstructionDisplay.from_estimator(autoencoder, test, feature_shape=(8, 8), with_pca=True)
plt.show()

# %%
# Each line of images changes one component of the code of a 0, while the others keep their values.
# The number above an image is the value of the component. The lines show the five components with
# the largest variance. The component at the top adds ink inside the 0. Most other components are
# harder to name, because training does not give single components a meaning.
TraversalDisplay.from_estimator(autoencoder, test, row=5, feature_shape=(8, 8))
plt.show()

# %%
# Each bar is the share of the variance that a component explains: it is lost if the component is
# set to its mean. The line shows the components of PCA, which is fitted to the same held-out rows.
ComponentImportanceDisplay.from_estimator(autoencoder, test)
plt.show()

# %%
# Each image shows the shares of the pixels in the variance of a component. They add up to 1 in each
# image. The pixels at the border, which hardly vary, contribute to no component.
AttributionDisplay.from_estimator(autoencoder, test, feature_shape=(8, 8))
plt.show()

# %%
# The columns of a table of wines have different units, so that they are standardized first. Each
# dot is the code of a wine. Each arrow points to the wines in which a column is large, and columns
# with arrows in the same direction increase together. Flavanoids and total phenols, for example,
# separate the wines of class 0 from those of class 2.
wine, cultivar = load_wine(return_X_y=True, as_frame=True)
model = make_pipeline(StandardScaler(), Autoencoder(2, random_state=0)).fit(wine)
BiplotDisplay.from_estimator(model, wine, cultivar.map("class {}".format))
plt.show()

# %%
# The code of a single wine can be explained, too. The contributions of its columns to a component
# add up to the difference between the code of this wine and that of the mean wine. They are
# positive (red) if a column increases the component, and negative (blue) if it decreases it.
AttributionDisplay.from_estimator(model, wine, row=0)
plt.show()

# %%
# Row 7 of the table of wines is given an alcohol content of 0. The display shows the two rows that
# the detector ranks as the most unusual ones. In row 7, alcohol has the largest share, and the text
# next to its bar shows the deviation and the expected value. Row 121 was not changed, and several
# of its columns have similar shares.
wine.loc[7, "alcohol"] = 0.0
detector = AutoencoderOutlierDetector(random_state=0).fit(wine)
OutlierExplanationDisplay.from_estimator(detector, wine, n_rows=2)
plt.show()
