"""
Recurrent autoencoder: sequences of different lengths
=====================================================

With `architecture="recurrent"` an autoencoder reads and writes sequences step by step. Rows stay
rows, flattened sequences of `feature_shape=(time, channels)`; a sequence that is shorter than
others ends with NaN, and those steps count nowhere: neither in the loss, nor in the code, nor in
the density. What comes back has full length, so that the model also says how a sequence would go
on.

Here they are swinging springs, each with a frequency, a damping and a phase of its own, seen for a
random time. A variational autoencoder also draws new ones.
"""

import matplotlib.pyplot as plt
import numpy as np

from skae import VariationalAutoencoder

rng = np.random.default_rng(0)
n, steps = 300, 20
t = np.arange(steps)
frequency, damping, phase = (
    rng.uniform(low, high, (n, 1)) for low, high in ((0.3, 0.7), (0.02, 0.1), (0, 2 * np.pi))
)
whole = np.exp(-damping * t) * np.sin(frequency * t + phase) + 0.03 * rng.normal(size=(n, steps))
length = rng.integers(8, steps + 1, n)
X = np.where(t < length[:, None], whole, np.nan)
train, test = X[:200], X[200:]

model = VariationalAutoencoder(
    6,
    architecture="recurrent",
    feature_shape=(steps, 1),
    batch_size=32,
    learning_rate=0.01,
    max_epochs=70,
    random_state=0,
).fit(train)

# %%
# Held-out springs: the steps that the model has seen, what comes back, and how the spring really
# went on. Below, drawn ones.

figure, axes = plt.subplots(2, 4, figsize=(10, 4.5), sharex=True, sharey=True, layout="constrained")
cut = np.flatnonzero((length[200:] > 9) & (length[200:] < 14))[:4]
for ax, i in zip(axes[0], cut, strict=True):
    ax.plot(t, whole[200 + i], "o", color="lightgray", label="what followed")
    ax.plot(t, test[i], "o", color="C0", label="seen")
    ax.plot(t, model.reconstruct(test[i : i + 1])[0], color="C1", label="restored")
    ax.set_title(f"{length[200 + i]} steps", fontsize=9)
axes[0, 0].legend(fontsize=7)
for ax, row in zip(axes[1], model.sample(4, mean=True, random_state=1), strict=True):
    ax.plot(t, row, color="C2")
    ax.set_title("drawn", fontsize=9)
plt.show()

# %%
# The density of a short sequence is that of the steps it has. Noise that is not a spring has a low
# one, whatever its length.

noise = np.where(np.isnan(test), np.nan, np.nanstd(test) * rng.normal(size=test.shape))
print(f"springs {model.score(test):.1f}, noise {model.score(noise):.1f} nats per row")
