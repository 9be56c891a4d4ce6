"""The variational autoencoder."""

from numbers import Integral, Real
from typing import Any, ClassVar, cast

import torch
from numpy.random import RandomState
from torch import Tensor

from skae._compat.sklearn import Interval, StrOptions
from skae.base import BaseAutoencoder, Floats, MatrixLike
from skae.density.importance import Importance
from skae.inference import map_rows, predictive_draws
from skae.nn.batch import Batch
from skae.nn.bounds import importance_weighted
from skae.nn.draws import Draws
from skae.nn.latent import Code, Encode, Latent, Start, Stochastic, log_normal
from skae.nn.normal import Normal
from skae.nn.pca import column_moments
from skae.parameters import check_integer
from skae.state import TableInfo

ACTIVE = 0.01
"""Variance of the posterior means of the rows above which a component counts as active."""


class Variational(Stochastic):
    """Codes with a normal posterior and a penalty on its divergence from the standard normal prior.

    Parameters
    ----------
    n_components : int
        Number of components of the code.
    full : bool
        Whether the posterior has a full covariance instead of a diagonal one.
    beta : float
        Weight of the divergence.
    warm_up : float
        Share of the training steps during which the weight increases from 0 to `beta`.
    n_samples : int
        Number of codes drawn for each row in training. With more than 1, the objective is the
        importance-weighted bound.
    """

    def __init__(
        self, n_components: int, full: bool, beta: float, warm_up: float, n_samples: int
    ) -> None:
        k = n_components
        super().__init__(k, 2 * k + full * (k * (k - 1) // 2))
        self.is_full, self.beta, self.warm_up, self.n_samples = full, beta, warm_up, n_samples

    def posterior(self, h: Tensor) -> Normal:
        """Compute the posterior of each row."""
        return Normal.of(h, self.n_components, self.is_full)

    def propose(self, h: Tensor, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        return self.posterior(h).place(draws.normal((n, len(h), self.n_components)))

    def divergence(self, h: Tensor) -> Tensor:
        return self.posterior(h).divergence()

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        posterior = self.posterior(h)
        z = posterior.mean[None] if draws is None else self.propose(h, self.n_samples, draws)[0]
        return Code(z, posterior.mean, h)

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        if self.n_samples == 1:
            return self._beta(draws) * self.divergence(code.h)
        # `bound` needs the log-density under the posterior without the gradient with respect to
        # the parameters of the posterior.
        log_q = self.posterior(code.h.detach()).log_prob(code.z)
        return self._beta(draws) * (log_q - log_normal(code.z))

    def bound(self, losses: Tensor, code: Code, draws: Draws | None, batch: Batch) -> Tensor:
        if self.n_samples == 1:
            return losses[0]
        return importance_weighted(losses, code.z, self._beta(draws))

    def _beta(self, draws: Draws | None) -> Tensor | float:
        return self.beta if draws is None else self.beta * draws.rise(self.warm_up)

    def start(self, values: Tensor, rest: float) -> Start:
        k, up = len(values), (values - rest).clamp_min(1e-6 * rest).sqrt()
        bias = values.new_zeros(self.n_inputs)
        bias[self.n_components : self.n_components + k] = 0.5 * (rest / values).log()
        return Start(up / values, up, bias)

    def warning(self, code: Code, weight: Tensor) -> str | None:
        active = (column_moments(code.mean, weight).variance > ACTIVE).nonzero()[:, 0].tolist()
        if 2 * len(active) >= self.n_components:
            return None
        return (
            f"Posterior collapse: of {self.n_components} components only {active} are active; the "
            "others do not depend on the rows. Lower beta or n_components."
        )


class VariationalAutoencoder(BaseAutoencoder):
    """Variational autoencoder: a probabilistic model of the rows.

    The encoder maps a row to a normal distribution of its code, the approximate posterior. The
    prior of codes is the standard normal distribution. The objective is the evidence lower bound of
    the log-density [1]_. Its penalty is the Kullback-Leibler divergence of the posterior from the
    prior. The noise variance of the Gaussian likelihood is trained with the network, unless `noise`
    is a float. If `linear_skip` applies, training starts at probabilistic PCA. With
    `noise="diagonal"`, it starts at factor analysis if there are at most 2,048 columns and the
    weights are not tied. For a linear model (`hidden_layer_sizes=()`) with the Gaussian likelihood,
    `noise="isotropic"` and `beta=1`, probabilistic PCA is the optimum of the objective [2]_, so
    that training cannot improve on it.

    `transform` returns the mean of the posterior and is not random. `score_samples` estimates the
    importance-weighted bound of the log-density [4]_ from 12 draws of the code. A third of them is
    drawn from the posterior, and the others from a normal distribution that is closer to the exact
    posterior of the row. Its mean is one Gauss-Newton step away from that of the posterior, and its
    precision is that of a linear approximation of the decoder. With more than 64 components, all of
    100 draws are from the posterior. The random numbers are computed from the row, so that equal
    rows have equal results in every call.

    Parameters
    ----------
    posterior_covariance : {"diagonal", "full"}, default="diagonal"
        Covariance of the posterior of a row. "full" allows correlations between components, which
        adds n_components * (n_components - 1) / 2 outputs to the encoder.

    beta : float, default=1.0
        Weight of the divergence during training [3]_. It must not be negative. Larger values make
        components more independent and fewer of them active; smaller values reduce the
        reconstruction error. The default gives the evidence lower bound. `score_samples` depends on
        `beta` only through the trained network.

    kl_warm_up : float, default=0.1
        Share of the training steps, from 0 to 0.5, during which the weight of the divergence
        increases linearly from 0 to `beta`. Without a warm-up, components may become inactive
        before the decoder has learned to use them. The upper limit ensures that training ends with
        the full objective. The objective on validation rows always has the weight `beta`.
        `partial_fit` and fits that resume from an earlier one (`warm_start`) have no warm-up.

    n_importance_samples : int, default=1
        Number of codes drawn for each row at each step. With more than 1, the objective is the
        importance-weighted bound [4]_ with doubly reparameterized gradients [5]_. This bound is
        tighter than the evidence lower bound, but the time of a step grows with the number of
        draws.

    Notes
    -----
    Most users set only `n_components`, `beta`, `max_epochs` and `random_state`. Lower `beta` or
    `n_components` if a warning reports a posterior collapse. Use `noise="diagonal"` if the noise
    variances of the columns differ.

    References
    ----------
    .. [1] D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", ICLR 2014.
    .. [2] J. Lucas, G. Tucker, R. Grosse and M. Norouzi, "Don't blame the ELBO! A linear VAE
       perspective on posterior collapse", NeurIPS 2019.
    .. [3] I. Higgins et al., "beta-VAE: learning basic visual concepts with a constrained
       variational framework", ICLR 2017.
    .. [4] Y. Burda, R. Grosse and R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
    .. [5] G. Tucker, D. Lawson, S. Gu and C. J. Maddison, "Doubly reparameterized gradient
       estimators for Monte Carlo objectives", ICLR 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VariationalAutoencoder
    >>> X = load_digits().data
    >>> variational = VariationalAutoencoder(8, max_epochs=20, random_state=0).fit(X[:1200])
    >>> mean, variance = variational.posterior(X[1200:])
    >>> mean.shape, variance.shape
    ((597, 8), (597, 8))
    >>> bool((variational.elbo(X) <= variational.score_samples(X)).mean() > 0.9)
    True
    >>> variational.sample(3, random_state=0).shape
    (3, 64)
    >>> variational.posterior_predictive(X[:2], n_draws=10, random_state=0).shape
    (10, 2, 64)
    """

    posterior_covariance: str = "diagonal"
    beta: float = 1.0
    kl_warm_up: float = 0.1
    n_importance_samples: int = 1

    _density = Importance

    _parameter_constraints: ClassVar = {
        "posterior_covariance": [StrOptions({"diagonal", "full"})],
        "beta": [Interval(Real, 0, None, closed="left")],
        "kl_warm_up": [Interval(Real, 0, 0.5, closed="both")],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
    }

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        full = self.posterior_covariance == "full"
        options = self.beta, self.kl_warm_up, self.n_importance_samples
        return Variational(n_components, full, *options)

    def posterior(self, X: MatrixLike) -> tuple[Floats, Floats]:
        """Compute the mean and the covariance of the posterior of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        mean : ndarray of shape (n_samples, n_components)
            Mean of the posterior, as `transform` returns it.
        covariance : ndarray of shape (n_samples, n_components) or \
(n_samples, n_components, n_components)
            Variances of the components, or covariance matrices if the model was fitted with
            `posterior_covariance="full"`.
        """
        fitted = self._read_fitted()
        network, latent = fitted.network, cast(Variational, fitted.network.latent)

        def mean_and_covariance(batch: Batch) -> Tensor:
            posterior = latent.posterior(network.encode(batch).h)
            return torch.cat([posterior.mean, posterior.covariance().flatten(1)], 1)

        both = map_rows(mean_and_covariance, fitted.schema.read(X), fitted)
        shape = (latent.n_components,) * (1 + latent.is_full)
        return both[:, : shape[0]], both[:, shape[0] :].reshape(-1, *shape)

    def posterior_predictive(
        self, X: MatrixLike, n_draws: int = 100, random_state: int | RandomState | None = None
    ) -> Any:
        """Draw rows from the posterior predictive distribution of each row.

        For each draw, a code is drawn from the encoder's posterior of the row, and a row is drawn
        from the likelihood given this code. The spread of the draws shows how uncertain a
        reconstruction is. Intervals are too narrow if the encoder's posterior, which approximates
        the true one, is. The missing last steps of sequences are drawn, too. The draws of a row
        depend on the other rows of `X`, which use the same random numbers in turn.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        n_draws : int, default=100
            Number of draws for each row. With the default, about 5 draws are below the 5 percent
            quantile of a cell; the standard deviation of this number is 2.
        random_state : int, RandomState instance or None, default=None
            Determines the draws. Pass an int for reproducible results.

        Returns
        -------
        draws : ndarray of shape (n_draws, n_samples, n_features) or list of data frames
            Drawn rows in the user's units. The columns of a condition are those of `X`. If the
            first fit received a data frame, each draw of all rows is such a data frame.

        Raises
        ------
        ValueError
            If `X`, `n_draws` or `random_state` is invalid.
        """
        fitted, n = self._read_fitted(), check_integer(n_draws, "n_draws", 1)
        seed = self._draw_seed(random_state, "posterior_predictive")
        return predictive_draws(fitted.schema.read(X), n, seed, fitted)

    def elbo(self, X: MatrixLike) -> Floats:
        """Compute the evidence lower bound of the log-density of each row.

        The divergence has a weight of 1, whatever the value of `beta`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        elbo : ndarray of shape (n_samples,)
            Evidence lower bound, in nats per row: the expected log-likelihood of the row minus the
            Kullback-Leibler divergence of the posterior from the prior. The expectation is
            estimated from 100 draws of the code, whose random numbers are computed from the row.
        """
        return self._evaluate_density("elbo", X)

    def log_likelihood(self, X: MatrixLike, n_samples: int = 100) -> Floats:
        """Estimate the importance-weighted bound of the log-density of each row.

        `score_samples` returns the same values as this method with `n_samples=12`, or 100 if there
        are more than 64 components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.
        n_samples : int, default=100
            Number of codes drawn for each row. More draws give a tighter bound. Their random
            numbers are computed from the row, so that equal rows have equal results in every call.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            Estimate whose expectation is a lower bound of the log-density, in nats per row.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer.
        """
        return self._evaluate_density("log_prob", X, check_integer(n_samples, "n_samples", 1))
