"""The semi-supervised variational autoencoder (M2)."""

from numbers import Real
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor

from skae._compat.sklearn import Interval, StrOptions
from skae.base import BaseAutoencoder, Floats, MatrixLike
from skae.density.importance import Importance
from skae.inference import codes
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.latent import Code, Encode, Stochastic, log_normal
from skae.nn.normal import NormalPerClass
from skae.state import FittedAttribute, TableInfo
from skae.table.targets import (
    ProbabilisticClassifier,
    Targets,
    check_same_classes,
    read_classes_and_prior,
    targets_of_positive_weight,
)


class ClassAndStyle(Stochastic):
    """Codes that consist of a normal style and a one-hot encoded class, with a joint posterior.

    Under the prior, the style is independent of the class. Under the posterior, it depends on the
    class. In training, a row has one code for each class: `Code.z` has shape
    (n_classes, n, n_components + n_classes).

    Parameters
    ----------
    n_components : int
        Number of components of the style.
    log_shares : Tensor of shape (n_classes,)
        Logarithms of the prior probabilities of the classes.
    """

    has_normal_posterior = is_linear = can_tie = False
    log_shares: Tensor
    one_hot: Tensor

    def __init__(self, n_components: int, log_shares: Tensor) -> None:
        k, n_classes = n_components, len(log_shares)
        super().__init__(k, n_classes * (2 * k + 1), k + n_classes)
        self.n_classes = n_classes
        self.register_buffer("log_shares", log_shares)
        self.register_buffer("one_hot", torch.eye(n_classes))

    def blocks(self) -> list[int]:
        return [self.n_classes, *[self.n_components] * 2 * self.n_classes]

    def posterior(self, h: Tensor) -> NormalPerClass:
        """Compute the posterior of each row: of the class, and of the style for each class."""
        return NormalPerClass.of(h, self.n_classes, self.n_components)

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        log_q, style = self.posterior(h)
        q = log_q.exp()
        mean = torch.cat([torch.einsum("nc,cnk->nk", q, style.mean), q], -1)
        if draws is None:
            return Code(mean, mean, h)
        z = style.place(draws.normal(style.mean.shape))[0]
        each = self.one_hot[:, None].expand(-1, len(h), -1)
        return Code(torch.cat([z, each], -1), mean, h)

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        return self.posterior(code.h).normal.divergence() - self.log_shares[:, None]

    def bound(self, losses: Tensor, code: Code, draws: Draws | None, batch: Batch) -> Tensor:
        classes, label_weight = cast(Tensor, batch.targets), cast(Tensor, batch.target_weight)
        log_q = self.posterior(code.h).log_share
        q, known = log_q.exp(), label_weight > 0
        # The loss of a row of unknown class is the expectation over classes, minus the entropy of
        # their probabilities. That of a row of known class contains the classification loss.
        p = torch.where(known, classes, q)
        entropy = torch.where(known[:, 0], 0.0, -(q * log_q).sum(-1))
        return (p * losses.mT).sum(-1) - entropy - (label_weight * classes * log_q).sum(-1)

    def propose(self, h: Tensor, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        chosen, z, log_prob = self.posterior(h).draw(n, draws)
        return torch.cat([z, self.one_hot[chosen]], -1), log_prob

    def divergence(self, h: Tensor) -> Tensor:
        return self.posterior(h).divergence(self.log_shares)

    def log_prior(self, z: Tensor) -> Tensor:
        style, one_hot = z.tensor_split([self.n_components], -1)
        return log_normal(style) + one_hot @ self.log_shares

    def draw_prior(self, n: int, draws: Draws) -> Tensor:
        shares = self.log_shares.exp().cumsum(0)
        chosen = torch.searchsorted(shares, draws.uniform((n,))).clamp_max(self.n_classes - 1)
        return torch.cat([draws.normal((n, self.n_components)), self.one_hot[chosen]], -1)


class SemiSupervisedVariationalAutoencoder(ProbabilisticClassifier, BaseAutoencoder):  # type: ignore[misc]  # score wants y
    """Variational autoencoder with a class in its code: a classifier for few labels.

    This is the model M2 of Kingma et al. [1]_. A row is generated from a class and a style. The
    style is a code whose prior is the standard normal distribution, independent of the class. The
    encoder returns the probabilities of the classes and, for each class, the posterior of the
    style. If the class of a row is known, the objective contains the evidence lower bound of the
    row and its class, and a classification loss. Otherwise, it contains the evidence lower bound of
    the row, an expectation over classes, so that the classifier also learns from rows without a
    label. The model M1+M2 of the paper is a pipeline of a `VariationalAutoencoder` and this one.

    `fit` needs the classes of the rows, `y`, in which -1 marks an unknown one. The values -1 and
    1 alone are two classes.

    `transform` returns the mean of the style, followed by the probabilities of the classes. These
    are `n_components_` + n_classes columns, and `inverse_transform` decodes such codes. `score` is
    the accuracy. `score_samples` estimates a lower bound of the log-density of a row from 100 draws
    of the class and the style. The draws are computed from the row, so that equal rows have equal
    results in every call.

    Parameters
    ----------
    n_components : int, float, "auto", "mle" or None, default="auto"
        Number of components of the style. A float in (0, 1) selects as many components as PCA needs
        to explain that share of the variance. "auto" is the square root of the number of columns,
        rounded, and at most 10, because a long style can describe rows without the class.

    label_weight : float or "auto", default="auto"
        Weight of the classification loss of a labeled row, relative to the evidence lower bound of
        this row. The classification loss is the negative log-probability of the class, in nats. The
        weight must be positive. "auto" is a tenth of the summed sample weight of all rows, those of
        `X_val` and of earlier calls of `partial_fit` included, so that a few labels have an
        influence among many rows. In [1]_, this number is divided by the number of labeled rows,
        which makes the labels a small part of the objective.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Classes in sorted order. They are determined by the first fit and do not change in fits that
        resume from it (`warm_start` and `partial_fit`).

    class_prior_ : ndarray of shape (n_classes,)
        Prior probability of each class: its share of the sample weight of the labeled rows in the
        fit that determined `classes_`. One row of weight 1 is added to each class, so that all
        probabilities are positive.

    See Also
    --------
    AutoencoderClassifier : Trains any autoencoder on rows and labels together.
    sklearn.semi_supervised.LabelSpreading : Propagates labels to nearest neighbors.

    Notes
    -----
    If the labeled rows have less than half of the summed sample weight, none of them is a
    validation row. If they are also at most a ninth of the training rows, and if a batch does not
    contain all training rows, an epoch repeats them with smaller weights. They then make up about a
    fifth of the rows of the batches. Without the repetition, a few rows with a large `label_weight`
    would make the gradients noisy.

    Most users set only `n_components`, `label_weight`, `max_epochs` and `random_state`. Decrease
    `n_components` or increase `label_weight` if the accuracy on labeled rows is low.

    References
    ----------
    .. [1] D. P. Kingma, D. J. Rezende, S. Mohamed and M. Welling, "Semi-supervised learning with
       deep generative models", NeurIPS 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import SemiSupervisedVariationalAutoencoder
    >>> X, y = load_digits(return_X_y=True)
    >>> few = y.copy()
    >>> few[100:] = -1
    >>> model = SemiSupervisedVariationalAutoencoder(max_epochs=10, random_state=0).fit(X, few)
    >>> bool(model.score(X[100:], y[100:]) > 0.85)
    True
    """

    label_weight: float | str = "auto"

    _density = Importance

    _parameter_constraints: ClassVar = {
        "label_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    }

    classes_ = FittedAttribute(lambda fitted: fitted.learned["classes_"])
    class_prior_ = FittedAttribute(lambda fitted: fitted.learned["class_prior_"])

    def _auto_components(self, n_features: int) -> int:
        return min(10, super()._auto_components(n_features))

    def _make_latent(self, n_components: int, table: TableInfo) -> ClassAndStyle:
        classes, prior = table.learned["classes_"], table.learned["class_prior_"]
        if not isinstance(classes, np.ndarray) or classes.shape != prior.shape:
            raise ValueError(f"{classes!r} are not the classes of this model")
        return ClassAndStyle(n_components, torch.from_numpy(np.log(prior)))

    def _read_targets(self, y: Any, weight: Floats, learned: Any, classes: Any = None) -> Targets:
        known = check_same_classes(learned.get("classes_"), classes)
        return read_classes_and_prior(*targets_of_positive_weight(y, weight, self), known, learned)

    def _target_weight(self, total: float) -> float:
        return 0.1 * total if self.label_weight == "auto" else float(self.label_weight)

    def partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike | None = None,
        sample_weight: MatrixLike | None = None,
        X_corrupted: MatrixLike | None = None,
        classes: MatrixLike | None = None,
    ) -> Self:
        """Train on new rows, beside a sample of the rows seen before.

        `Autoencoder.partial_fit` has the details. The first call of `fit` or `partial_fit`
        determines the classes and their prior probabilities, too.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Classes of the rows. They are required. -1 marks an unknown class, unless -1 is in
            `classes_`. All classes may be unknown if `classes` is passed or if an earlier call has
            determined `classes_`.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will contain, at least two, in any order. With None, the first
            call uses the classes in its `y`, and -1 is one of them only if 1 is the only other
            class. Later calls do not need `classes`. If it is passed to them, it must
            contain the same classes as `classes_`, in any order.

        Raises
        ------
        ValueError
            As in `fit`, or if `y` contains a class that is not in `classes_`, if `classes` has
            fewer than two classes or differs from `classes_`, if a call after the first one has
            other columns, or if the parameters have changed since the last call so that they
            describe a different network.
        """
        return self._partial_fit(X, y, sample_weight, X_corrupted, classes=classes)

    def predict_proba(self, X: MatrixLike) -> Floats:
        """Compute the probabilities of the classes under the posterior of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Probabilities of the classes, in the order of `classes_`. They sum to 1 in each row.
        """
        fitted = self._read_fitted()
        Z = codes(fitted.schema.read(X), fitted)
        return Z[:, fitted.network.latent.n_components :]
