"""
Stacked autoencoder: training layer by layer
============================================

The encoder of this example has eight hidden layers, and so has the decoder. A network as deep as
this may learn nothing without help. ``layerwise_epochs`` trains each layer first as a small
autoencoder of the output of the layer below, and then all layers together. The alternative is the
default: the network is initialized at the PCA solution.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skae import Autoencoder, LossCurveDisplay

X = load_digits().data / 16
train, test = X[:1200], X[1200:]
deep = Autoencoder(
    8, hidden_layer_sizes=(64,) * 8, linear_skip=False, max_epochs=20, random_state=0
)


def fit_deep(**changes):
    return Autoencoder(**{**deep.get_params(), **changes}).fit(train)


# %%
# The curves show the objective while all layers are trained together. Without pre-training they are
# flat: no epoch is better than the initial weights. After five epochs of pre-training per layer,
# they begin lower and continue to fall.
models = {"all at once": fit_deep(), "layer by layer": fit_deep(layerwise_epochs=5)}
figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for panel, (name, model) in zip(panels, models.items(), strict=True):
    LossCurveDisplay.from_estimator(model, ax=panel)
    panel.set_title(name)
plt.show()

# %%
# More epochs do not replace pre-training. Five epochs for each of eight layers and twenty for all
# layers are sixty epochs in total. After as many epochs, the network without pre-training still
# reconstructs every row as the mean row.
#
# With a ``corruption``, each layer learns to restore its input from a corrupted version. This is a
# stacked denoising autoencoder. It reconstructs held-out rows with a smaller error if 30 % of their
# pixels are set to 0, and with a larger error if they are clean.
#
# For clean rows, initialization at the PCA solution makes pre-training unnecessary: the same deep
# network is then a little better without any pre-training, and the default, two wide layers that
# start at PCA, has the smallest error of all. For corrupted rows this initialization does not help:
# the pre-trained networks are better.
models["all at once, 60 epochs"] = fit_deep(max_epochs=60)
models["layer by layer, masking"] = fit_deep(layerwise_epochs=5, corruption="masking")
models["start at PCA"] = fit_deep(linear_skip=True)
models["default: two layers"] = Autoencoder(8, max_epochs=20, random_state=0).fit(train)
models["PCA"] = PCA(8, random_state=0).fit(train)

corrupted = np.where(np.random.RandomState(0).rand(*test.shape) < 0.3, 0, test)
errors = {
    name: [
        ((model.inverse_transform(model.transform(rows)) - test) ** 2).sum(axis=1).mean()
        for rows in (test, corrupted)
    ]
    for name, model in models.items()
}
table = pd.DataFrame(errors, index=["clean rows", "corrupted rows"]).T
print(table.round(2))
print(f"the mean row: {((train.mean(axis=0) - test) ** 2).sum(axis=1).mean():.2f}")
table.plot.barh(figsize=(8, 4), xlabel="squared error of held-out rows").invert_yaxis()
plt.tight_layout()
plt.show()
