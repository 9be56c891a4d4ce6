"""
Conditional variational autoencoder: one handwriting, other digits
==================================================================

A :class:`~skae.ConditionalVariationalAutoencoder` models the columns of a table given some of them,
the condition. Here the condition is the digit. The encoder and the decoder both receive it, so that
the code only has to describe the handwriting.
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
# ``sample`` draws rows for a given condition. With ``mean=True`` it returns the mean row of each
# drawn code instead of a row with noise.

conditions = np.tile(np.arange(10), 6)
drawn = model.sample(60, mean=True, condition=conditions, random_state=0)[:, :-1]
figure, panels = plt.subplots(6, 10, figsize=(6, 3.8), layout="constrained")
for panel, image in zip(panels.flat, drawn.reshape(-1, 8, 8), strict=True):
    panel.imshow(image, cmap="gray_r", vmin=0, vmax=16)
    panel.set_axis_off()
figure.suptitle("Draws of the digits 0 to 9")
plt.show()

# %%
# ``translate`` keeps the code of a row and replaces its condition. Each line below starts with a
# held-out digit and continues with all ten digits in its handwriting.

chosen = [int(np.flatnonzero(test["target"] == digit)[5]) for digit in (0, 3, 4, 7)]
figure, panels = plt.subplots(4, 11, figsize=(6.6, 2.6), layout="constrained")
for row, line in zip(chosen, panels, strict=True):
    original = test.iloc[[row]]
    translated = [model.translate(original, digit)[0, :-1] for digit in range(10)]
    images = [original.iloc[0, :-1].to_numpy(), *translated]
    for panel, image in zip(line, images, strict=True):
        panel.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        panel.set_axis_off()
panels[0, 0].set_title("original", fontsize=9)
plt.show()

# %%
# ``score_samples`` returns the log-density of a row given its condition. The digit under which a
# row is most likely is the prediction of a Bayes classifier, although the model was not trained to
# classify.

densities = [model.score_samples(test.assign(target=digit)) for digit in range(10)]
correct = np.argmax(densities, axis=0) == test["target"]
print(f"held-out digits that are most likely under their own class: {100 * correct.mean():.1f} %")
