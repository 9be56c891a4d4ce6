"""
Contractive autoencoder: codes that are insensitive to small changes of rows
============================================================================

The rows of this example lie near a curved surface of two dimensions in a space of twenty. An
autoencoder with six components has four more components than the surface has dimensions. A
:class:`~skae.ContractiveAutoencoder` penalizes the squares of the derivatives of the code with
respect to the row. These derivatives form the Jacobian of the encoder. Its singular values measure
how much the code changes if the row moves by a small step, from the direction of the largest change
to that of the smallest.
"""

import matplotlib.pyplot as plt
import numpy as np

from skae import Autoencoder, ContractiveAutoencoder

rng = np.random.RandomState(0)
positions = rng.uniform(-1.5, 1.5, (1000, 2))
X = np.tanh(positions @ rng.randn(2, 30)) @ rng.randn(30, 20) / np.sqrt(30)
X += 0.1 * rng.randn(*X.shape)
train, test = X[:700], X[700:]

# %%
# The six singular values of the plain autoencoder are almost equal. With the penalty, all of them
# are smaller, and the later ones are smaller relative to the first. With ``contraction=1``, the
# singular values beyond the second are less than half of the first. The reconstruction error
# increases with ``contraction``. With ``n_projections=1``, each step estimates the penalty from one
# random direction of the code, which saves time.
#
# The penalty also shrinks the codes as a whole. The figure therefore shows the singular values
# divided by the largest one. Derivatives are computed by finite differences, one column at a time.


def singular_values(model: Autoencoder | ContractiveAutoencoder, step: float = 1e-3) -> np.ndarray:
    """Return the singular values of the encoder's Jacobian, averaged over held-out rows."""
    differences = [
        model.transform(test + step * e) - model.transform(test - step * e) for e in np.eye(20)
    ]
    jacobians = np.stack(differences, axis=-1) / (2 * step)
    return np.linalg.svd(jacobians, compute_uv=False).mean(axis=0)


models = {"Autoencoder": Autoencoder(6, max_epochs=30, random_state=0)}
for contraction in (0.1, 1.0):
    models[f"contraction={contraction:g}"] = ContractiveAutoencoder(
        6, contraction=contraction, n_projections=1, max_epochs=30, random_state=0
    )
figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, model in models.items():
    values = singular_values(model.fit(train))
    axis.plot(range(1, 7), values / values[0], "o-", label=name)
    error = model.reconstruction_error(test).mean()
    print(f"{name}: singular values {values.round(2)}, held-out error {error:.3f}")
axis.axvline(2, color="gray", ls=":", label="dimensions of the surface")
axis.set(xlabel="index of the singular value", ylabel="ratio to the largest", ylim=(0, 1.05))
axis.legend()
plt.show()
