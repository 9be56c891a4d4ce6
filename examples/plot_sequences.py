"""
Recurrent autoencoder: sequences of different lengths
=====================================================

With ``architecture="recurrent"``, the encoder and the decoder process sequences step by step. Each
row is a flattened sequence of ``feature_shape=(time, channels)``. If a sequence has fewer steps,
the row ends with NaN. These steps are missing: the loss, the code and the density ignore them.
Reconstructions have the full length, so that the model also predicts how a sequence continues.

The sequences of this example are damped oscillations of springs. Each has its own frequency,
damping and phase, and a random number of observed steps. The model is a variational autoencoder.
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
complete = np.exp(-damping * t) * np.sin(frequency * t + phase) + 0.03 * rng.normal(size=(n, steps))
length = rng.integers(8, steps + 1, n)
X = np.where(t < length[:, None], complete, np.nan)
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
# The upper panels show held-out sequences of 10 to 13 observed steps, their reconstructions, and
# their true continuations. The lower panels show sequences that ``sample`` draws from the model,
# without noise.

figure, axes = plt.subplots(2, 4, figsize=(10, 4.5), sharex=True, sharey=True, layout="constrained")
cut = np.flatnonzero((length[200:] > 9) & (length[200:] < 14))[:4]
for ax, i in zip(axes[0], cut, strict=True):
    ax.plot(t, complete[200 + i], "o", color="lightgray", label="true continuation")
    ax.plot(t, test[i], "o", color="C0", label="observed")
    ax.plot(t, model.reconstruct(test[i : i + 1])[0], color="C1", label="reconstruction")
    ax.set_title(f"{length[200 + i]} steps", fontsize=9)
axes[0, 0].legend(fontsize=7)
for ax, row in zip(axes[1], model.sample(4, mean=True, random_state=1), strict=True):
    ax.plot(t, row, color="C2")
    ax.set_title("drawn", fontsize=9)
plt.show()

# %%
# The log-density of a short sequence is that of its observed steps. ``score`` returns the mean over
# the held-out sequences. White noise with the same overall standard deviation and the same missing
# steps has a lower mean.

noise = np.where(np.isnan(test), np.nan, np.nanstd(test) * rng.normal(size=test.shape))
print(f"mean log-density: springs {model.score(test):.1f}, noise {model.score(noise):.1f} nats")
