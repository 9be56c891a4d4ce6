"""
Generation: draws, interpolation and traversal
==============================================

This example generates digits with four autoencoders of eight components each. It decodes codes that
are drawn at random, codes on the line between the codes of two rows, and codes that differ from
that of a row in a single component. The methods are ``sample``, ``interpolate`` and ``traverse``.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import (
    AdversarialAutoencoder,
    Autoencoder,
    VariationalAutoencoder,
    WassersteinAutoencoder,
)

X, digit = load_digits(return_X_y=True)
families = (
    Autoencoder,
    VariationalAutoencoder,
    WassersteinAutoencoder,
    AdversarialAutoencoder,
)
models = [family(8, max_epochs=20, random_state=0).fit(X[:1200]) for family in families]


def show(title: str, images: list[np.ndarray]) -> None:
    """Draw one line of images for each model."""
    figure, axes = plt.subplots(len(models), 10, figsize=(9, 4), layout="constrained")
    figure.suptitle(title)
    for row, model, line in zip(axes, models, images, strict=True):
        for axis, image in zip(row, line, strict=True):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            axis.set(xticks=[], yticks=[])
        name = type(model).__name__.removesuffix("Autoencoder") or "Plain"
        row[0].set_ylabel(name, rotation=0, ha="right")


# %%
# ``sample`` draws codes and, with ``mean=True``, returns the expected row of each code. The plain
# autoencoder draws codes from a normal distribution that is fitted to its codes after training. The
# other three draw codes from the standard normal distribution, the prior in their training.
show("Samples", [model.sample(10, mean=True, random_state=0) for model in models])

# %%
# ``interpolate`` decodes codes on the straight line between the codes of a 0 and a 3. Both digits
# are held out.
held_out = X[1200:]
zero, three = (held_out[np.flatnonzero(digit[1200:] == number)[-1]] for number in (0, 3))
show("From a 0 to a 3", [model.interpolate(zero, three, n_steps=10) for model in models])

# %%
# ``traverse`` sets one component of the code of a 3 to several values. For each model, this is the
# component with the largest variance. Its values range from two standard deviations below its mean
# to two above.
traversals = []
for model in models:
    codes = model.transform(X[:1200])
    deviation = codes.std(axis=0)
    component = int(deviation.argmax())
    values = codes[:, component].mean() + deviation[component] * np.linspace(-2, 2, 10)
    traversals.append(model.traverse(three, component, values))
show("One component of a 3", traversals)
plt.show()
