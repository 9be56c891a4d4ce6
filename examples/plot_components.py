"""
How many components?
====================

Rows with three hidden causes, bent by a random network into twelve columns, plus noise. Held-out
squared error falls with every component that is added, whether the data have it or not. Held-out
density, which ``score`` tells in nats per row, has its maximum at the true size.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import Autoencoder

rng = np.random.RandomState(0)
causes = rng.randn(1500, 3)
X = np.tanh(causes @ rng.randn(3, 20)) @ rng.randn(20, 12) / np.sqrt(20)
X += 0.1 * rng.randn(*X.shape)
train, test = train_test_split(X, test_size=0.3, random_state=0)

sizes = range(1, 6)
models = {
    "PCA": [PCA(size).fit(train) for size in sizes],
    "Autoencoder": [Autoencoder(size, random_state=0).fit(train) for size in sizes],
}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for name, fitted in models.items():
    errors = [
        ((model.inverse_transform(model.transform(test)) - test) ** 2).sum(axis=1).mean()
        for model in fitted
    ]
    nats = [model.score(test) for model in fitted]
    left.plot(sizes, errors, "o-", label=name)
    right.plot(sizes, nats, "o-", label=name)
    print(name, "has its highest held-out density with", sizes[int(np.argmax(nats))], "components")
left.set(title="Held-out squared error", xlabel="components", ylabel="per row")
right.set(title="Held-out density", xlabel="components", ylabel="nats per row")
right.axvline(3, color="gray", ls=":", label="true size")
right.legend()
plt.show()
