"""
Contractive autoencoder: codes that resist small changes
========================================================

Rows on a curved surface with two dimensions in a space of twenty, plus noise. An autoencoder with
six components has four to spare. The singular values of the encoder's Jacobian, the matrix of
derivatives of the code by the row, tell how strongly the code answers to a small step in its most
and least sensitive directions.
"""

import matplotlib.pyplot as plt
import numpy as np

from skae import Autoencoder, ContractiveAutoencoder

rng = np.random.RandomState(0)
places = rng.uniform(-1.5, 1.5, (1000, 2))
X = np.tanh(places @ rng.randn(2, 30)) @ rng.randn(30, 20) / np.sqrt(30)
X += 0.1 * rng.randn(*X.shape)
train, test = X[:700], X[700:]

# %%
# The plain code answers to all six directions alike. With a price on derivatives it answers less to
# every one, and least to those beyond the two along which rows really vary; the price is error.
# Derivatives by finite differences, one column after the other.


def singular_values(model: Autoencoder | ContractiveAutoencoder, step: float = 1e-3) -> np.ndarray:
    """Singular values of the encoder's Jacobian, a mean over held-out rows."""
    moved = [
        model.transform(test + step * e) - model.transform(test - step * e) for e in np.eye(20)
    ]
    jacobians = np.stack(moved, axis=-1) / (2 * step)
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
axis.set(xlabel="singular value", ylabel="share of the largest", ylim=(0, 1.05))
axis.legend()
plt.show()
