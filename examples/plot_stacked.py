"""
Stacked autoencoder: training layer by layer
============================================

Eight hidden layers into a code of eight numbers, and eight layers back: a network as deep as this
may learn nothing without help. ``layerwise_epochs`` is one: each layer is first trained as a small
autoencoder of what the layer below says, then all of them together. The start at PCA, the default,
is another.
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


def fitted(**changes):
    return Autoencoder(**{**deep.get_params(), **changes}).fit(train)


# %%
# The objective while all layers are trained together. Without pre-training the curves are flat: no
# epoch is better than the start. After five epochs for each layer they begin lower and go on
# falling.
models = {"all at once": fitted(), "layer by layer": fitted(layerwise_epochs=5)}
figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for panel, (name, model) in zip(panels, models.items(), strict=True):
    LossCurveDisplay.from_estimator(model, ax=panel)
    panel.set_title(name)
plt.show()

# %%
# Is it only a matter of epochs? Five for each of eight layers and twenty for all are sixty in all.
# With as many, the plain network still answers every row with the mean row.
#
# With a ``corruption`` each layer learns to restore what it sees from a corrupted version: this
# makes a stacked denoising autoencoder. Held-out rows of which 30 % of the pixels are set to 0 come
# back with a smaller error, clean ones with a larger one.
#
# The start at PCA makes all this unnecessary for clean rows: the same deep network is then a little
# better without any pre-training, and the default, two wide layers that start at PCA, has the
# smallest error of all. For corrupted rows it is no help: there the pre-trained ones are better.
models["all at once, 60 epochs"] = fitted(max_epochs=60)
models["layer by layer, masking"] = fitted(layerwise_epochs=5, corruption="masking")
models["start at PCA"] = fitted(linear_skip=True)
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
