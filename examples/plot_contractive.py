"""
Contractive autoencoder: codes that resist small changes
========================================================

The rows lie near a curved surface of two dimensions in a space of twenty. An autoencoder with six
components has four more than it needs. A :class:`~skae.ContractiveAutoencoder` penalizes large
derivatives of the code with respect to the row. These derivatives form the encoder's Jacobian. Its
singular values measure how much the code changes for a small step in its most and least sensitive
directions.
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
# The code of the plain autoencoder is about equally sensitive in all six directions. With a penalty
# on derivatives, the code is less sensitive in every direction, and least beyond the two directions
# in which rows really vary. In return, the reconstruction error is larger. The derivatives are
# computed by finite differences, one column at a time.


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
axis.set(xlabel="index of the singular value", ylabel="relative to the largest", ylim=(0, 1.05))
axis.legend()
plt.show()
