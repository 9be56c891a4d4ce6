"""
Stacked autoencoder: training layer by layer
============================================

The encoder of this example has eight hidden layers, and so has the decoder. If such a deep network
is trained from random weights, it may learn nothing. With ``layerwise_epochs``, each layer is first
trained as a shallow autoencoder of the output of the layer below. Then all layers are trained
together. Autoencoders of skae do not need this by default, because ``linear_skip`` adds linear maps
that are initialized at the PCA solution. The networks here have ``linear_skip=False`` except where
the text says otherwise.
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
# The curves show the objective while all layers are trained together. Without pre-training, they
# are flat, and no epoch has a smaller objective on the validation rows than the initial weights.
# The initial weights are therefore kept (epoch 0). After five epochs of pre-training for each
# layer, the curves fall.
models = {"all at once": fit_deep(), "layer by layer": fit_deep(layerwise_epochs=5)}
figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for panel, (name, model) in zip(panels, models.items(), strict=True):
    LossCurveDisplay.from_estimator(model, ax=panel)
    panel.set_title(name)
plt.show()

# %%
# More epochs do not replace pre-training. Five epochs for each of eight layers and twenty for all
# layers are sixty epochs in total. A network without pre-training is therefore also trained for
# sixty epochs. Its error is still that of the mean row.
#
# With a ``corruption``, each layer learns to restore its input from a corrupted version. This is a
# stacked denoising autoencoder. Compared with the pre-trained network without a corruption, its
# error is smaller if 30 % of the pixels of held-out rows are set to 0, and larger if the rows are
# clean.
#
# With ``linear_skip=True``, the deep network starts at the PCA solution. For clean rows, its error
# is then a little smaller than after pre-training. The default network, which has two wide layers
# and starts at the PCA solution, has the smallest error of all. For corrupted rows, the pre-trained
# networks have the smallest errors. The errors of the two networks that start at the PCA solution
# are slightly larger than that of PCA.
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
table.plot.barh(figsize=(8, 4), xlabel="squared error per held-out row").invert_yaxis()
plt.tight_layout()
plt.show()
