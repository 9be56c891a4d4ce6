"""The plain autoencoder, whose codes are deterministic and have no penalty."""

from skae.base import BaseAutoencoder
from skae.nn.latent import Deterministic, Latent
from skae.state import TableInfo


class Autoencoder(BaseAutoencoder):
    """Autoencoder: nonlinear dimensionality reduction whose training starts at PCA's solution.

    An encoder maps each row to a short code, and a decoder reconstructs the row from the code. Both
    are trained to minimize the reconstruction error [1]_. If `linear_skip` applies, the initial
    network is the solution of PCA. By default the autoencoder is undercomplete, that is, the code
    has fewer components than the row has columns. With `hidden_layer_sizes=()` and the Gaussian
    likelihood, the autoencoder is linear and finds the subspace of PCA [2]_. More hidden layers
    make it deep, and more components than columns make it overcomplete.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int or "auto", default="auto"
        Widths of the encoder's hidden layers. The decoder has the same widths in reverse order.
        A width is a number of units for `architecture="mlp"`, of channels for "conv" and of
        recurrent states for "recurrent". `()` gives a linear autoencoder. "auto" is (128, 64) for
        "mlp" if rows have at most 64 columns, and (256, 128) if they have more. On nine tables of
        at most 64 columns, the wider layers took twice as long and reconstructed about as well. It
        is (64,) for "recurrent" and (16, 32) for "conv", or fewer layers for images that are too
        small to be halved twice. "recurrent" needs at least one layer.

    learning_rate : float, default=0.008
        Peak of the one-cycle schedule in `fit`, and the largest rate in `partial_fit`. The
        schedule rises during the first quarter of the steps and then falls to almost zero. If the
        loss becomes infinite or NaN, `fit` starts again with a third of this rate, once, and warns.
        On nine tables, narrow layers with this rate reconstructed as well as wider ones with the
        rate of the other autoencoders, 0.003.

    See Also
    --------
    DenoisingAutoencoder : Autoencoder that is trained on corrupted rows.
    VariationalAutoencoder : Autoencoder that encodes each row as a distribution of codes.
    sklearn.decomposition.PCA : Linear method whose solution is the initial network.
    sklearn.decomposition.FactorAnalysis : Linear method with one noise variance per column.

    Notes
    -----
    Most users set only `n_components`, `max_epochs`, `noise` and `random_state`. Choose
    `n_components` with `components_path`. Decrease `max_epochs` for faster fits, and increase it if
    the validation loss still decreases at the end. If you use `score_samples` and the noise
    variances of the columns differ, set `noise="diagonal"`.

    References
    ----------
    .. [1] G. E. Hinton and R. R. Salakhutdinov, "Reducing the dimensionality of data with neural
       networks", Science 313, 2006.
    .. [2] P. Baldi and K. Hornik, "Neural networks and principal component analysis: learning
       from examples without local minima", Neural Networks 2, 1989.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skae import Autoencoder
    >>> X = load_digits().data
    >>> train, test = X[:1200], X[1200:]
    >>> autoencoder = Autoencoder(8, max_epochs=30, random_state=0).fit(train)
    >>> autoencoder.transform(test).shape
    (597, 8)
    >>> pca = PCA(8).fit(train)
    >>> pca_error = ((pca.inverse_transform(pca.transform(test)) - test) ** 2).sum(axis=1)
    >>> bool(autoencoder.reconstruction_error(test).mean() < 0.7 * pca_error.mean())
    True
    >>> bool(autoencoder.score(test) > pca.score(test))
    True
    """

    learning_rate: float = 8e-3

    _narrow_widths = (128, 64)

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        return Deterministic(n_components)
