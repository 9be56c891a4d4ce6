"""
Wasserstein and adversarial autoencoders: codes that follow a prior
===================================================================

Nothing controls the distribution of the codes of a plain autoencoder. The
:class:`~skae.WassersteinAutoencoder` and the :class:`~skae.AdversarialAutoencoder` fit the
distribution of the codes of all rows to a prior, the standard normal distribution. The first
penalizes a distance between codes and draws from the prior. The second trains a discriminator that
learns to distinguish codes from draws.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits

from skae import AdversarialAutoencoder, Autoencoder, WassersteinAutoencoder

X, digit = load_digits(return_X_y=True)
train, test = X[:1200], X[1200:]
draws = np.random.RandomState(0).randn(2000, 2)

# %%
# The energy distance is 0 if two distributions are equal. Its value for fresh draws shows how large
# it is by chance. The codes of the plain autoencoder have a scale of their own. They are
# standardized before they are drawn and measured a second time, so that only their shape counts.
# The codes of the Wasserstein autoencoder are as close to the normal distribution as fresh draws,
# but its reconstruction error is larger. The codes of the adversarial autoencoder have the center
# and the scale of the prior at almost no increase of the error, but keep the gaps between the
# digits.


def energy_distance(codes: np.ndarray) -> float:
    """Return the energy distance between codes and standard normal draws."""
    return float(
        2 * cdist(codes, draws).mean() - cdist(codes, codes).mean() - cdist(draws, draws).mean()
    )


models = [
    Autoencoder(2, max_epochs=40, random_state=0),
    WassersteinAutoencoder(2, max_epochs=40, random_state=0),
    AdversarialAutoencoder(2, prior_weight=10, max_epochs=40, random_state=0),
]
fresh = np.random.RandomState(1).randn(len(train), 2)
print(f"fresh draws: energy distance {energy_distance(fresh):.4f}")
figure, panels = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
for panel, model in zip(panels, models, strict=True):
    codes = model.fit(train).transform(train)
    if isinstance(model, Autoencoder):
        print(f"Autoencoder, not standardized: energy distance {energy_distance(codes):.4f}")
        codes = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    name = type(model).__name__
    error = model.reconstruction_error(test).mean()
    print(f"{name}: energy distance {energy_distance(codes):.4f}, held-out error {error:.0f}")
    panel.scatter(*codes.T, c=digit[:1200], cmap="tab10", s=6)
    for radius in (1, 2, 3):
        panel.add_patch(plt.Circle((0, 0), radius, fill=False, color="gray", ls=":"))
    panel.set(title=name, xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
plt.show()
