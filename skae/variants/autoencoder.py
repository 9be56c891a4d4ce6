"""The plain autoencoder, whose codes are deterministic and have no penalty."""

from skae.base import BaseAutoencoder
from skae.nn.latent import Deterministic, Latent
from skae.state import TableInfo


class Autoencoder(BaseAutoencoder):
    """Autoencoder: nonlinear dimensionality reduction that starts at PCA's solution.

    An encoder maps each row to a short code, and a decoder reconstructs the row from the code. Both
    are trained to minimize the reconstruction error [1]_. By default the autoencoder is
    undercomplete, that is, the code has fewer components than the row has columns. With
    `hidden_layer_sizes=()` it is linear and finds the subspace of PCA [2]_. Longer
    `hidden_layer_sizes` make it deep, and a larger `n_components` makes it overcomplete.

    See Also
    --------
    DenoisingAutoencoder : Is trained on corrupted rows.
    VariationalAutoencoder : Has a probabilistic code.
    sklearn.decomposition.PCA : Linear method with the solution at which training starts.
    sklearn.decomposition.FactorAnalysis : Linear method with one noise variance per column.

    Notes
    -----
    Most users set only `n_components`, `max_epochs`, `noise` and `random_state`. Choose
    `n_components` by `components_path`. Lower `max_epochs` for faster fits, and raise it if the
    validation loss still decreases at the end. Use `noise="diagonal"` if columns have noise of
    different size and `score_samples` matters.

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

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        return Deterministic(n_components)
