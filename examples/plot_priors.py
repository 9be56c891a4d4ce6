"""
Wasserstein and adversarial autoencoders: codes that follow a prior
===================================================================

The objective of a plain autoencoder does not depend on the distribution of the codes. The
:class:`~skae.WassersteinAutoencoder` and the :class:`~skae.AdversarialAutoencoder` train their
codes to follow a prior, the standard normal distribution. The Wasserstein autoencoder penalizes the
maximum mean discrepancy between the codes and draws from the prior. The adversarial autoencoder
trains a discriminator to distinguish codes from draws, and the encoder to make them
indistinguishable.
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
# The distance between codes and the prior is measured by the energy distance to draws from the
# prior. It is 0 if two distributions are equal. The value for a second set of draws shows how large
# it is by chance. The codes of the plain autoencoder have another scale than the prior. They are
# therefore also measured after standardization, and the figure shows the standardized codes. The
# dotted circles have radii of 1, 2 and 3.
#
# The energy distance of the Wasserstein autoencoder is as small as that of draws, but its
# reconstruction error is a third larger than that of the plain autoencoder. The adversarial
# autoencoder, with ``prior_weight=10`` instead of the default 3, increases the error by less than a
# tenth. Its codes have about the mean and the standard deviation of the prior, but the gaps between
# the digits remain. Its energy distance is no smaller than that of the standardized codes of the
# plain autoencoder.


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
