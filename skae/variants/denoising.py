"""The denoising autoencoder."""

from skae.base import BaseAutoencoder
from skae.nn.corruption import Corruption
from skae.nn.latent import Deterministic, Latent
from skae.state import TableInfo


class DenoisingAutoencoder(BaseAutoencoder):
    """Denoising autoencoder, which reconstructs rows from corrupted versions of them.

    During training, the encoder receives corrupted rows, and the decoder reconstructs the clean
    ones. The network therefore learns how columns predict each other instead of copying its input
    [1]_. Codes are robust to this kind of corruption, and `reconstruct` removes it. If you have
    corrupted and clean versions of the same rows, pass both: `fit(X, X_corrupted=...)`. Only
    training corrupts rows; `transform` and the other methods do not.

    Parameters
    ----------
    corruption : {"gaussian", "masking", "salt_and_pepper", "swap", "grayscale", "downsampling", \
"block"}, callable or None, default="masking"
        Corruption of the encoder's input during training. Its strength is `corruption_level`.

        - "gaussian" adds normal noise.
        - "masking" sets cells to 0, clipped to the range of their column. It is the default because
          it is suitable for most tables and needs no knowledge of the noise.
        - "salt_and_pepper" sets cells to the smallest or the largest value of their column.
        - "swap" sets cells to the value of their column in another row. It is suitable for tables
          whose columns have different distributions.
        - "grayscale" sets all channels of an image to their mean, so that the network learns
          colorization. This and the following two need `feature_shape`.
        - "downsampling" averages two by two pixels and enlarges the result (super-resolution).
        - "block" masks a square at a random place (inpainting).

        A callable `f(x, generator) -> x` receives rows, a tensor of shape (n, n_features) in the
        user's units, and a `torch.Generator` for its random numbers. None corrupts nothing.

    Notes
    -----
    Most users set only `n_components`, `corruption`, `corruption_level` and `random_state`. Choose
    the corruption that resembles the errors in your data. To restore rows of which most cells are
    correct, use as many components as columns.

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
    >>> corrupted = np.where(np.random.default_rng(0).random(test.shape) < 0.3, 0, test)
    >>> plain = Autoencoder(16, max_epochs=15, random_state=0).fit(train)
    >>> denoising = DenoisingAutoencoder(16, max_epochs=15, random_state=0).fit(train)
    >>> plain_error, error = (
    ...     ((model.reconstruct(corrupted) - test) ** 2).sum(axis=1).mean()
    ...     for model in (plain, denoising)
    ... )
    >>> bool(error < 0.5 * plain_error)
    True
    """

    corruption: str | Corruption | None = "masking"

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        return Deterministic(n_components)
