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
    """A class and a normal style given the class, with a posterior for both."""

    is_linear = False
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
        """Compute each row's distribution of classes, and of styles given the class."""
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
        # Unknown classes are summed over. Known classes have no entropy.
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

    This is the model M2 of Kingma et al. [1]_. A class and a style, a normal code that is
    independent of the class, generate a row. The encoder gives the probabilities of the classes
    and, for each class, the distribution of the style. If the class of a row is known, the evidence
    lower bound is that of the row and the class. Otherwise it is a sum over classes, so that the
    classifier also learns from rows without a label. The model M1+M2 of the paper is a pipeline of
    another autoencoder and this one.

    `transform` returns the mean style, followed by the probabilities of the classes, and
    `inverse_transform` decodes such codes. `score` is the accuracy. `score_samples` is the
    log-density of rows, integrated over classes and styles.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Number of components of the style. A float in (0, 1) selects as many components as PCA needs
        for that share of the variance. "auto" is the rounded square root of the number of columns,
        at most 10, because a long style can describe rows without the class.

    label_weight : float or "auto", default="auto"
        Weight of the classification loss of a labeled row, the negative log-probability of its
        class, relative to its evidence lower bound. It must be positive. "auto" is a tenth of the
        summed weight of all rows passed to the call, so that a few labels have an influence among
        many rows. In [1]_ this is divided by the number of labeled rows, which makes the labels a
        small part of the objective.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Classes in sorted order.

    class_prior_ : ndarray of shape (n_classes,)
        Prior probability of each class: its share of the labeled rows of the first call, computed
        with one additional row of each class.

    See Also
    --------
    AutoencoderClassifier : Trains any autoencoder on rows and labels together.
    sklearn.semi_supervised.LabelSpreading : Propagates labels to nearest neighbors.

    Notes
    -----
    If less than half of the rows have a label, these rows are repeated with smaller weights, such
    that they make up a fifth of each batch. Rare rows with large weights would make the gradients
    noisy. Labeled rows are then not used as validation rows.

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
    >>> model = SemiSupervisedVariationalAutoencoder(max_epochs=20, random_state=0).fit(X, few)
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
        y, weight = targets_of_positive_weight(y, weight, self)
        label_weight = 0.1 * weight.sum() if self.label_weight == "auto" else self.label_weight
        classes = check_same_classes(learned.get("classes_"), classes)
        return read_classes_and_prior(y, weight, float(label_weight), classes)

    def partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike | None = None,
        sample_weight: MatrixLike | None = None,
        X_corrupted: MatrixLike | None = None,
        classes: MatrixLike | None = None,
    ) -> Self:
        """Train for one pass over rows, some or all of which have a class.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Classes of the rows, with -1 for unknown ones.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call will contain. It is needed in the first call only; by default,
            the classes are those of its `y`.
        """
        return self._partial_fit(X, y, sample_weight, X_corrupted, classes=classes)

    def predict_proba(self, X: MatrixLike) -> Floats:
        """Predict the probabilities of classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the user's units.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of `classes_`.
        """
        fitted = self._read_fitted()
        Z = codes(fitted.schema.read(X), fitted)
        return Z[:, fitted.network.latent.n_components :]
