"""
Variational autoencoder: codes that are distributions
=====================================================

A :class:`~skae.VariationalAutoencoder` encodes each row as a distribution of codes, the posterior.
Training keeps the posteriors close to the prior, the standard normal distribution, so that rows
decoded from draws of the prior resemble the training rows.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skae import VariationalAutoencoder

X, digit = load_digits(return_X_y=True)
train, test = X[:1200], X[1200:]

# %%
# The figure shows the codes of held-out digits with two components, by PCA and by a variational
# autoencoder. ``transform`` of the latter returns the means of the posteriors. The script prints
# the squared error and the log-density per held-out row.
pca = PCA(2, random_state=0).fit(train)
flat = VariationalAutoencoder(2, max_epochs=40, random_state=0).fit(train)
figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for panel, model in zip(panels, (pca, flat), strict=True):
    codes = model.transform(test)
    points = panel.scatter(*codes.T, c=digit[1200:], cmap="tab10", vmin=-0.5, vmax=9.5, s=8)
    error = ((model.inverse_transform(codes) - test) ** 2).sum(axis=1).mean()
    name = type(model).__name__
    panel.set(title=name, xlabel="component 0", ylabel="component 1")
    print(f"{name}: held-out error {error:.0f}, {model.score(test):.1f} nats per row")
figure.colorbar(points, ticks=range(10), label="digit")

# %%
# ``beta`` is the weight of the Kullback-Leibler divergence of the posterior from the prior. The
# divergence of a component, averaged over rows, is an upper bound of the information, in nats, that
# the component contains about a row. A component counts as active if its posterior mean has a
# variance above 0.01. All components are active in this example. With ``beta=4``, most of them
# contain almost no information, and the held-out error is more than three times as large as with
# ``beta=1``. With ``beta=0.1``, the divergences are larger, but the error is about the same as with
# ``beta=1``.
betas = (0.1, 1.0, 4.0)
models = {b: VariationalAutoencoder(16, beta=b, max_epochs=25, random_state=0) for b in betas}
figure, panel = plt.subplots(figsize=(6, 3.5), layout="constrained")
for beta, model in models.items():
    mean, variance = model.fit(train).posterior(train)
    nats = 0.5 * (mean**2 + variance - 1 - np.log(variance)).mean(axis=0)
    panel.plot(range(1, 17), np.sort(nats)[::-1], "o-", label=f"beta = {beta:g}")
    print(
        f"beta {beta:g}: {(mean.var(axis=0) > 0.01).sum()} of 16 active, {nats.sum():.1f} nats, "
        f"held-out error {model.reconstruction_error(test).mean():.0f}"
    )
panel.set(xlabel="component, largest divergence first", ylabel="divergence (nats per row)")
panel.legend()

# %%
# The last figure shows draws of each model. ``sample`` draws codes from the prior and, with
# ``mean=True``, returns the expected row of each code.
figure, axes = plt.subplots(len(betas), 12, figsize=(9, 2.6), layout="constrained")
for row, (beta, model) in zip(axes, models.items(), strict=True):
    for axis, image in zip(row, model.sample(12, mean=True, random_state=0), strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"beta = {beta:g}", rotation=0, ha="right")
plt.show()
