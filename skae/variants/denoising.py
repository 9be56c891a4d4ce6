"""The denoising autoencoder."""

from skae.base import BaseAutoencoder
from skae.nn.corruption import Corruption
from skae.nn.latent import Deterministic, Latent
from skae.state import TableInfo


class DenoisingAutoencoder(BaseAutoencoder):
    """Denoising autoencoder, which reconstructs rows from corrupted versions of them.

    During training, the encoder receives corrupted rows, and the decoder reconstructs the clean
    rows. The network therefore learns how columns predict each other instead of copying its input
    [1]_. Codes become robust to this kind of corruption, and `reconstruct` reduces it. If you have
    corrupted and clean versions of the same rows, pass both: `fit(X, X_corrupted=...)`. Rows are
    then not corrupted any further. Methods such as `transform` do not corrupt rows.

    Parameters
    ----------
    corruption : {"gaussian", "masking", "salt_and_pepper", "swap", "grayscale", "downsampling", \
"block"}, callable or None, default="masking"
        How the rows that the encoder receives are corrupted during training. `corruption_level` is
        the strength of a corruption given by name. Validation rows are corrupted once, before the
        first epoch.

        - "gaussian" adds normal noise.
        - "masking" sets cells to 0, or to the value nearest to 0 in the range of their column. It
          is the default because it is suitable for most tables and needs no knowledge of the noise.
        - "salt_and_pepper" sets cells to the smallest or the largest value of their column.
        - "swap" sets cells to the value of their column in a different row. It is suitable for
          tables whose columns have different distributions.
        - "grayscale", for images, sets all channels to their mean, so that the network learns to
          restore the colors.
        - "downsampling", for images, averages blocks of two by two pixels and enlarges the result,
          so that the network learns to increase the resolution.
        - "block", for images, masks a square at a random position in the same way as "masking", so
          that the network learns to fill it in.
        - A callable `f(x, generator) -> x` receives rows, a tensor of shape (n, n_features) in the
          user's units, and a `torch.Generator`, from which it should draw its random numbers.
        - None does not corrupt rows.

        Corruptions of images require `feature_shape=(channels, height, width)`. Standard deviations
        and ranges of columns are those of the rows passed to `fit`, or seen by `partial_fit`.

    Notes
    -----
    Most users set only `n_components`, `corruption`, `corruption_level` and `random_state`. Choose
    the corruption that resembles the errors in your data. If most cells of the rows to restore are
    correct, use as many components as columns.

    In tables with categories, "masking" hides cells from the encoder as if they were missing. The
    reconstruction of a category counts only where it is hidden, because the encoder could otherwise
    copy it instead of predicting it from the other columns. Codes then contain what columns have in
    common, and reconstructed categories agree less often with those of the row.

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

    _predicts_hidden = True

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        return Deterministic(n_components)
