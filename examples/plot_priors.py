"""
Wasserstein and adversarial autoencoders: codes that follow a prior
===================================================================

Codes of a plain autoencoder lie where training has left them. The
:class:`~skae.WassersteinAutoencoder` and the :class:`~skae.AdversarialAutoencoder` hold the codes
of all rows together to the standard normal distribution, the first by comparing them with draws,
the second by a judge that learns to tell codes from draws.
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
# The energy distance is 0 where two distributions are the same; that of fresh draws tells what
# chance makes of it. The plain autoencoder's codes have a scale of their own and are measured and
# drawn standardised, so that only their shape counts. The Wasserstein autoencoder's codes come as
# near to the normal distribution as fresh draws, at a price in error. The adversarial one's have
# its centre and scale and about the price of none, but keep the gaps between the digits.


def energy_distance(codes: np.ndarray) -> float:
    """Distance of codes' distribution from that of standard normal draws."""
    return float(
        2 * cdist(codes, draws).mean() - cdist(codes, codes).mean() - cdist(draws, draws).mean()
    )


models = [
    Autoencoder(2, max_epochs=40, random_state=0),
    WassersteinAutoencoder(2, max_epochs=40, random_state=0),
    AdversarialAutoencoder(2, prior_weight=10, max_epochs=40, random_state=0),
]
chance = np.random.RandomState(1).randn(len(train), 2)
print(f"draws: energy distance {energy_distance(chance):.4f}")
figure, panels = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
for panel, model in zip(panels, models, strict=True):
    codes = model.fit(train).transform(train)
    if isinstance(model, Autoencoder):
        print(f"Autoencoder, its own scale: energy distance {energy_distance(codes):.4f}")
        codes = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    name = type(model).__name__
    error = model.reconstruction_error(test).mean()
    print(f"{name}: energy distance {energy_distance(codes):.4f}, held-out error {error:.0f}")
    panel.scatter(*codes.T, c=digit[:1200], cmap="tab10", s=6)
    for radius in (1, 2, 3):
        panel.add_patch(plt.Circle((0, 0), radius, fill=False, color="gray", ls=":"))
    panel.set(title=name, xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
plt.show()
