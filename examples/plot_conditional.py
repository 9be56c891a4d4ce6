"""
Conditional variational autoencoder: other digits in the same handwriting
=========================================================================

A :class:`~skae.ConditionalVariationalAutoencoder` models some columns of a table conditional on the
others. In this example, the modelled columns are the pixels of an image, and the condition is its
digit. The encoder and the decoder both receive the condition, so that the code need not contain the
digit. The code describes the handwriting.
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
# ``sample`` draws rows under a chosen condition. With ``mean=True`` it returns the expected row of
# each drawn code, without the noise of the likelihood. The rows contain the condition as their last
# column, which is left out here.

conditions = np.tile(np.arange(10), 6)
drawn = model.sample(60, mean=True, condition=conditions, random_state=0)
drawn = drawn.drop(columns="target").to_numpy()
figure, panels = plt.subplots(6, 10, figsize=(6, 3.8), layout="constrained")
for panel, image in zip(panels.flat, drawn.reshape(-1, 8, 8), strict=True):
    panel.imshow(image, cmap="gray_r", vmin=0, vmax=16)
    panel.set_axis_off()
figure.suptitle("Draws of the digits 0 to 9")
plt.show()

# %%
# ``translate`` keeps the code of a row and replaces its condition. Each line of the figure starts
# with a held-out digit. The ten images to its right are the digits 0 to 9, decoded from its code.

chosen = [int(np.flatnonzero(test["target"] == digit)[5]) for digit in (0, 3, 4, 7)]
figure, panels = plt.subplots(4, 11, figsize=(6.6, 2.6), layout="constrained")
for row, line in zip(chosen, panels, strict=True):
    original = test.iloc[[row]]
    translated = [model.translate(original, digit) for digit in range(10)]
    for panel, rows in zip(line, [original, *translated], strict=True):
        image = rows.drop(columns="target").to_numpy()
        panel.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        panel.set_axis_off()
panels[0, 0].set_title("original", fontsize=9)
plt.show()

# %%
# ``score_samples`` estimates the conditional log-density of a row. The digit with the largest
# density is the prediction of a Bayes classifier with equal prior probabilities. The model was not
# trained to classify.

densities = [model.score_samples(test.assign(target=digit)) for digit in range(10)]
correct = np.argmax(densities, axis=0) == test["target"]
print(f"held-out rows whose own digit has the largest density: {100 * correct.mean():.1f} %")
