"""
Displays: training, codes, reconstructions and outliers
=======================================================

What a fitted autoencoder can show of itself: how it learned, where it puts rows, what comes back of
them, what each component does, and why a row is strange.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA

from skae import (
    Autoencoder,
    AutoencoderOutlierDetector,
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
# Did it learn? Both curves fall. Training rows gain more than held-out rows, whose curve is almost
# level in the end; the dotted line is the epoch whose weights are kept.
LossCurveDisplay.from_estimator(autoencoder)
print(f"epoch {autoencoder.best_epoch_} of {autoencoder.n_iter_} is kept")
plt.show()

# %%
# Where are the rows? Dots are held-out digits with codes of two numbers, beside PCA of the same
# rows. For the autoencoder 4 and 6 are two groups, for PCA one; 5, 8 and some of the 1s lie on top
# of each other in the middle of its picture.
flat = Autoencoder(2, max_epochs=20, random_state=0).fit(train)
LatentSpaceDisplay.from_estimator(flat, test, digit[1200:])
plt.show()

# %%
# What comes back of held-out digits from eight numbers each? PCA, though fitted to the very rows
# that are drawn, keeps less of the variance, and its pictures are paler: see the 5 and the last 2.
shares = {
    "Autoencoder": explained_variance_ratio(autoencoder, test),
    "PCA": explained_variance_ratio(PCA(8).fit(test), test),
}
print(*(f"{name} keeps {share:.0%} of the variance" for name, share in shares.items()), sep="\n")
ReconstructionDisplay.from_estimator(autoencoder, test, feature_shape=(8, 8), with_pca=True)
plt.show()

# %%
# What does a component do? It changes in a row of pictures, while the others stay as they are in
# the code of a 0. The one on top puts ink into the hole of the 0. Most others are harder to name:
# nothing makes a component mean something by itself.
TraversalDisplay.from_estimator(autoencoder, test, row=5, feature_shape=(8, 8))
plt.show()

# %%
# Why is a row strange? Row 7 of a table of wines was given an alcohol of 0. It is found to be the
# strangest, and alcohol has most of the blame, with the value that was expected beside it. Row 121
# is as it was measured: several of its columns share the blame.
wine = load_wine(as_frame=True).data
wine.loc[7, "alcohol"] = 0.0
detector = AutoencoderOutlierDetector(random_state=0).fit(wine)
OutlierExplanationDisplay.from_estimator(detector, wine, n_rows=2)
plt.show()
