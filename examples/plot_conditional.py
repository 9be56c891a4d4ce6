"""
Conditional variational autoencoder: one handwriting, other digits
==================================================================

A :class:`~skae.ConditionalVariationalAutoencoder` is given some columns and models the others. Here
the digit is given: encoder and decoder see it, and the code is left to say how it is written.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import ConditionalVariationalAutoencoder

table = load_digits(as_frame=True).frame
train, test = table[:1200], table[1200:]
model = ConditionalVariationalAutoencoder(condition="target", max_epochs=40, random_state=0)
model.fit(train)

# %%
# ``sample`` draws rows of the digit that is asked for. Here is the mean of each drawn code's rows.

asked = np.tile(np.arange(10), 6)
drawn = model.sample(60, mean=True, condition=asked, random_state=0)[:, :-1]
figure, panels = plt.subplots(6, 10, figsize=(6, 3.8), layout="constrained")
for panel, image in zip(panels.flat, drawn.reshape(-1, 8, 8), strict=True):
    panel.imshow(image, cmap="gray_r", vmin=0, vmax=16)
    panel.set_axis_off()
figure.suptitle("Draws of the digits 0 to 9")
plt.show()

# %%
# ``translate`` keeps a row's code and changes what is given: each row below starts with a held-out
# digit, then shows what its hand would make of all ten.

chosen = [int(np.flatnonzero(test["target"] == digit)[5]) for digit in (0, 3, 4, 7)]
figure, panels = plt.subplots(4, 11, figsize=(6.6, 2.6), layout="constrained")
for row, line in zip(chosen, panels, strict=True):
    original = test.iloc[[row]]
    hand = [model.translate(original, digit)[0, :-1] for digit in range(10)]
    images = [original.iloc[0, :-1].to_numpy(), *hand]
    for panel, image in zip(line, images, strict=True):
        panel.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        panel.set_axis_off()
panels[0, 0].set_title("given", fontsize=9)
plt.show()

# %%
# ``score_samples`` is the log-density of a row given its condition. The digit under which a row is
# most likely is a Bayes classifier's answer, though nothing was trained to tell digits apart.

densities = [model.score_samples(test.assign(target=digit)) for digit in range(10)]
right = np.argmax(densities, axis=0) == test["target"]
print(f"held-out digits that are most likely under their own class: {100 * right.mean():.1f} %")
