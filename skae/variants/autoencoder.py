"""The plain autoencoder: its code is what the encoder says, at no price."""

from skae.base import BaseAutoencoder
from skae.nn.latent import Deterministic, Latent
from skae.state import TableInfo


class Autoencoder(BaseAutoencoder):
    """Autoencoder: nonlinear PCA that starts at PCA.

    An encoder squeezes each row into a short code, a decoder restores the row from it; both are
    trained to lose as little as possible. Undercomplete (a code shorter than the row) by default;
    linear with `hidden_layer_sizes=()`, where it finds PCA's subspace; deep and overcomplete with
    longer `hidden_layer_sizes` and larger `n_components`.

    Read more in Hinton and Salakhutdinov [1]_ and Baldi and Hornik [2]_.

    See Also
    --------
    sklearn.decomposition.PCA : The linear method that this one starts from.
    sklearn.decomposition.FactorAnalysis : Linear, with a noise variance for each column.

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
    >>> autoencoder = Autoencoder(8, random_state=0).fit(train)
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
