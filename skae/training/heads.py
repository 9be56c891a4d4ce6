"""Heads: linear maps from codes to targets, trained with the network and refitted afterwards."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.nn import functional as F

from skae.nn.batch import Batch
from skae.nn.bodies.layers import Dense
from skae.nn.latent import Code
from skae.nn.network import AuxiliaryLoss
from skae.table.targets import Targets, Units, infer_numbers, read_multiclass, read_numbers

Floats = NDArray[np.floating]

MAP_C = 10.0
"""Inverse of the penalty of the linear map from codes to classes. Codes that were trained with the
classes need less shrinkage than columns, for which the default of scikit-learn is 1."""

ROUNDING = 1e-12
"""Standard deviation of codes, relative to their magnitude, that rounding errors may cause."""


class Family(ABC):
    """Kind of targets, with a loss for linear maps from codes to targets and an estimator of them.

    n_outputs is the number of outputs of a map, and m is the number of targets of a row. They are
    equal except for classes, which have one output per class and m = 1.
    """

    @abstractmethod
    def loss(self, out: Tensor, values: Tensor) -> Tensor:
        """Compute the losses (..., n, m), in nats, of outputs (..., n, n_outputs).

        `values` (n, n_outputs) are the targets.
        """

    @abstractmethod
    def solve(self, Z: Floats, values: Floats, weight: Floats) -> tuple[Floats, Floats]:
        """Fit a linear map from codes to targets, with an L2 penalty on the coefficients.

        Parameters
        ----------
        Z : ndarray of shape (n, k)
            Centered codes of unit scale.
        values : ndarray of shape (n, n_outputs)
            Targets.
        weight : ndarray of shape (n, m)
            Weights of the targets, 0 where missing.

        Returns
        -------
        coef : ndarray of shape (k, n_outputs)
            Coefficients.
        intercept : ndarray of shape (n_outputs,)
            Intercepts.
        """


class Classes(Family):
    """Mutually exclusive classes: softmax and cross-entropy."""

    def loss(self, out: Tensor, values: Tensor) -> Tensor:
        return -(values * out.log_softmax(-1)).sum(-1, keepdim=True)

    def solve(self, Z: Floats, values: Floats, weight: Floats) -> tuple[Floats, Floats]:
        counts = weight[:, 0] @ values
        # A class without rows has coefficients of 0. The addition of half a row to each class keeps
        # its intercept finite.
        coef, intercept = np.zeros((Z.shape[1], len(counts))), np.log((counts + 0.5) / len(Z))
        found = np.flatnonzero(counts)
        if len(found) > 1:
            model = fit_logistic(Z, weight * values)
            # For two classes, scikit-learn fits one map to the log-odds. It is split between them.
            signs = np.array([[-0.5], [0.5]]) if len(found) == 2 else np.eye(len(found))
            coef[:, found], intercept[found] = (signs @ model.coef_).T, signs @ model.intercept_
        return coef, intercept


class IndependentTargets(Family):
    """Targets that are fitted independently, each with a linear map of its own."""

    @abstractmethod
    def solve_single(self, Z: Floats, value: Floats, weight: Floats) -> tuple[Floats, float]:
        """Fit the coefficients (k,) and the intercept for a single target (n,), as `solve` does."""

    def solve(self, Z: Floats, values: Floats, weight: Floats) -> tuple[Floats, Floats]:
        maps = [self.solve_single(Z, *pair) for pair in zip(values.T, weight.T, strict=True)]
        return np.stack([coef for coef, _ in maps], axis=1), np.array([bias for _, bias in maps])


class Labels(IndependentTargets):
    """Independent labels of 0 or 1: sigmoid and cross-entropy."""

    def loss(self, out: Tensor, values: Tensor) -> Tensor:
        return F.softplus(out) - values * out

    def solve_single(self, Z: Floats, value: Floats, weight: Floats) -> tuple[Floats, float]:
        positive, negative = weight @ value, weight @ (1 - value)
        if min(positive, negative) > 0:
            model = fit_logistic(Z, np.stack([weight * (1 - value), weight * value], axis=1))
            return model.coef_[0], model.intercept_[0]
        # If only 0 or only 1 occurs, the coefficients are 0. Half a row of each keeps the intercept
        # finite.
        return np.zeros(Z.shape[1]), float(np.log((positive + 0.5) / (negative + 0.5)))


class Numbers(IndependentTargets):
    """Numbers, standardized, with standard normal noise: squared error and ridge regression."""

    @staticmethod
    def targets(y: Floats, weight: Floats) -> Targets:
        """Return the targets for numbers `y` (n, m), NaN where missing, with their units.

        Raises ValueError if the variance of a target is not finite.
        """
        known = ~np.isnan(y)
        values, counts = np.nan_to_num(y), weight[:, None] * known
        total = counts.sum(axis=0)
        # A part of a stream of rows may contain columns without numbers.
        total = np.where(known.any(axis=0), total, 1.0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            center = (counts * values).sum(axis=0) / total
            scale = np.sqrt((counts * (values - center) ** 2).sum(axis=0) / total)
        if not np.isfinite(scale).all():
            raise ValueError(
                f"The variance of column {np.isfinite(scale).argmin()} of y is not finite. Rescale "
                "the column, or give rows in which it is observed a positive sample_weight."
            )
        units = Units(center, np.where(scale > 0, scale, 1.0))
        return Targets(values, known.astype(float), units=units)

    def loss(self, out: Tensor, values: Tensor) -> Tensor:
        return 0.5 * (out - values) ** 2

    def solve_single(self, Z: Floats, value: Floats, weight: Floats) -> tuple[Floats, float]:
        known = weight > 0
        # Before training, this is possible because all rows with a target may be validation rows.
        if not known.any():
            return np.zeros(Z.shape[1]), 0.0
        model = Ridge().fit(Z[known], value[known], weight[known])
        return model.coef_, model.intercept_


def read_classes_or_numbers(
    y: Any, weight: Floats, known: NDArray[Any] | None, is_part: bool
) -> tuple[Family, Targets | None]:
    """Read y as numbers if some of them are fractions, and as classes otherwise.

    Constant targets contain no information. They have the same effect as None, unless they are a
    part of a stream of rows.

    Parameters
    ----------
    y : array-like of shape (n,)
        Targets.
    weight : ndarray of shape (n,)
        Weights of the rows.
    known : ndarray of shape (n_classes,) or None
        Classes of earlier rows, without any if their targets are numbers. They determine what `y`
        is.
    is_part : bool
        Whether `y` is a part of a stream of rows.

    Returns
    -------
    family : Family
        Kind of the targets.
    targets : Targets or None
        The targets, whose `learned` contains the classes.
    """
    y = infer_numbers(np.asarray(y))
    if known is None and (y == y[:1]).all():
        if not is_part:
            return Classes(), None
        raise ValueError(
            "The first y that partial_fit receives must contain at least two different values, "
            "which show whether they are classes or numbers."
        )
    if known is None:
        is_number = y.dtype.kind == "f" and not (y == np.round(y)).all()
    else:
        is_number = not len(known)
    family: Family = Classes()
    if is_number:
        family, classes = Numbers(), np.zeros(0)
        targets = Numbers.targets(read_numbers(y, known is None), weight)
    else:
        classes, targets = read_multiclass(y, None, weight, known)
    return family, replace(targets, learned={"y_classes_": classes})


def fit_logistic(Z: Floats, counts: Floats, C: float = MAP_C) -> LogisticRegression:
    """Fit a logistic regression to rows (n, k), where a row has a weight (n, n_classes) per class.

    A row may have a positive weight for several classes.
    """
    rows, classes = np.nonzero(counts)
    model = LogisticRegression(C=C, tol=1e-7, max_iter=10_000)
    return model.fit(Z[rows], classes, counts[rows, classes])


def center_and_scale(Z: Floats, weight: Floats) -> tuple[Floats, float]:
    """Compute the mean (k,) of codes, and one scale for all their components.

    With a common scale, a ridge penalty has the smallest effect on the components with the largest
    variance. If codes vary by rounding errors only, the scale is 1.
    """
    center = np.average(Z, axis=0, weights=weight)
    scale = np.sqrt(np.average((Z - center) ** 2, axis=0, weights=weight).mean())
    return center, scale if scale > ROUNDING * (1 + np.abs(center).max()) else 1.0


def fit_linear_map(
    family: Family, Z: Floats, targets: Targets, weight: Floats
) -> tuple[Floats, Floats]:
    """Fit coefficients (k, n_outputs) and intercepts that predict targets from codes (n, k).

    Only rows with an observed target are used. The predictions are in the user's units.
    """
    observed = targets.any_observed
    targets, Z, weight = targets.take(observed), Z[observed], weight[observed]
    center, scale = center_and_scale(Z, weight)
    counts = targets.observed * weight[:, None]
    coef, intercept = family.solve((Z - center) / scale, targets.standardized, counts)
    coef = coef / scale
    intercept = intercept - center @ coef
    if targets.units is None:
        return coef, intercept
    return coef * targets.units.scale, intercept * targets.units.scale + targets.units.center


class Head(AuxiliaryLoss):
    """Auxiliary loss of a linear map from codes to targets.

    Its gradient trains the map and the encoder, so that the targets can be predicted from the
    codes. The map is initialized by `Family.solve` for the initial codes, or with the known one if
    training continues, and it is discarded after training.

    Parameters
    ----------
    family : Family
        Kind of targets, which determines the loss.
    label_weight : float
        Weight of the loss of the targets.
    reconstruction_weight : float
        Weight of the loss of the autoencoder itself.
    known : tuple of (ndarray, ndarray) or None
        Coefficients and intercepts with which `resume` initializes the map. They predict in the
        user's units from the network's codes.
    """

    center: Tensor
    scale: Tensor
    price: Tensor
    share: Tensor

    def __init__(
        self,
        family: Family,
        label_weight: float,
        reconstruction_weight: float,
        known: tuple[Floats, Floats] | None = None,
    ) -> None:
        super().__init__()
        self.family, self.known = family, known
        # The weights are buffers because buffers are part of the fingerprint by which a checkpoint
        # is matched to a fit.
        self.register_buffer("share", torch.tensor(float(reconstruction_weight)))
        self.register_buffer("price", torch.tensor(float(label_weight)))

    @torch.no_grad()
    def start(self, codes: Tensor, batch: Batch) -> None:
        tensors = (codes, batch.weight, *_targets(batch))
        Z, weight, values, counts = (t.cpu().double().numpy() for t in tensors)
        center, scale = center_and_scale(Z, weight)
        found = self.family.solve((Z - center) / scale, values, counts * weight[:, None])
        self._set(center, scale, *found, codes)

    @torch.no_grad()
    def resume(self, like: Tensor, units: tuple[Floats, Floats] | None) -> bool:
        if self.known is None:
            return False
        coef, intercept = self.known
        if units is not None:
            coef, intercept = coef / units[1], (intercept - units[0]) / units[1]
        self._set(np.zeros(len(coef)), 1.0, coef, intercept, like)
        return True

    def _set(
        self, center: Floats, scale: float, coef: Floats, intercept: Floats, like: Tensor
    ) -> None:
        self.register_buffer("center", torch.from_numpy(center).to(like))
        self.register_buffer("scale", torch.tensor(scale).to(like))
        self.linear = Dense(*coef.shape).to(like)
        self.linear.weight.copy_(torch.from_numpy(coef.T))
        self.linear.bias.copy_(torch.from_numpy(intercept))

    def forward(self, losses: Tensor, code: Code, batch: Batch) -> Tensor:
        values, counts = _targets(batch)
        loss = self.family.loss(self.linear((code.z - self.center) / self.scale), values)
        auxiliary = self.price * (counts * loss).sum(-1).reshape(-1, len(counts)).mean(0)
        return self.share * losses + auxiliary

    def penalized(self) -> list[Tensor]:
        return [self.linear.weight]

    def input_tensors(self) -> list[Tensor]:
        return [self.center, self.linear.weight]


def _targets(batch: Batch) -> tuple[Tensor, Tensor]:
    assert batch.targets is not None
    assert batch.target_weight is not None
    return batch.targets, batch.target_weight
