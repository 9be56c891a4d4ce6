"""The denoising autoencoder: rows come back from corrupted versions of them."""

from skae.base import BaseAutoencoder
from skae.nn.corruption import Corruption
from skae.nn.latent import Deterministic, Latent
from skae.state import TableInfo


class DenoisingAutoencoder(BaseAutoencoder):
    """Autoencoder that is trained to restore rows from corrupted versions of them.

    While it trains, the encoder sees rows that `corruption` has corrupted, and the loss is on the
    clean ones. Copying its input is then no solution: it must learn which columns tell what of
    which others [1]_. Codes are robust to that kind of damage, and `reconstruct` repairs it. Where
    damaged and clean versions of the same rows are at hand, `fit(X, X_corrupted=...)` learns from
    those pairs. Nothing is corrupted in `transform` or any other method.

    Parameters
    ----------
    corruption : {"gaussian", "masking", "salt_and_pepper", "swap", "grayscale", "downsampling", \
"block"}, callable or None, default="masking"
        How to corrupt the rows that the encoder sees while training. "gaussian" adds normal noise,
        "masking" sets cells to 0 or to the value nearest to it that their column takes,
        "salt_and_pepper" to their column's smallest or largest value, "swap" to their column's
        value in another, different row: use it for tables, whose columns differ. Three are for
        images, whose `feature_shape` they need: "grayscale" sets all channels to their mean and
        teaches colourisation, "downsampling" makes one pixel of two by two, enlarges what is left
        and teaches super-resolution, "block" blanks a square at a random place and teaches
        inpainting. A callable `f(x, generator) -> x` is given rows (a tensor of shape
        (n, n_features), in the user's units) and a `torch.Generator`, from which its randomness
        should come.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol, "Extracting and composing robust
       features with denoising autoencoders", ICML 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder, DenoisingAutoencoder
    >>> X = load_digits().data
    >>> train, test = X[:1200], X[1200:]
    >>> damaged = np.where(np.random.default_rng(0).random(test.shape) < 0.3, 0, test)
    >>> plain = Autoencoder(16, max_epochs=30, random_state=0).fit(train)
    >>> denoising = DenoisingAutoencoder(16, max_epochs=30, random_state=0).fit(train)
    >>> plain_error, error = (
    ...     ((model.reconstruct(damaged) - test) ** 2).sum(axis=1).mean()
    ...     for model in (plain, denoising)
    ... )
    >>> bool(error < 0.5 * plain_error)
    True
    """

    corruption: str | Corruption | None = "masking"

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        return Deterministic(n_components)
