"""How answers follow from codes: a linear map, trained with the codes, then solved for anew."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

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
from skae.table.targets import Targets

Floats = NDArray[np.floating]

ROUNDING = 1e-12
"""Deviation of codes, as a share of their size, that is none."""


class Family(ABC):
    """How answers follow from a linear map of codes: its price in nats, and its best solution."""

    @abstractmethod
    def loss(self, out: Tensor, values: Tensor) -> Tensor:
        """Price (..., n, m) of outputs (..., n, n_outputs) where the answers are `values`."""

    @abstractmethod
    def solve(self, Z: Floats, values: Floats, weight: Floats) -> tuple[Floats, Floats]:
        """Weights (k, n_outputs) and biases for codes (n, k) of unit scale."""

    def to_user_units(self, coef: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        """Weights and biases for answers in the user's units."""
        return coef, intercept


class Classes(Family):
    """One of several classes: softmax."""

    def loss(self, out: Tensor, values: Tensor) -> Tensor:
        return -(values * out.log_softmax(-1)).sum(-1, keepdim=True)

    def solve(self, Z: Floats, values: Floats, weight: Floats) -> tuple[Floats, Floats]:
        known, counts = weight[:, 0] > 0, weight[:, 0] @ values
        # A class without examples has no slope, and half an example.
        coef, intercept = np.zeros((Z.shape[1], len(counts))), np.log((counts + 0.5) / len(Z))
        found = np.flatnonzero(counts)
        if len(found) > 1:
            model = _logistic().fit(Z[known], values[known].argmax(axis=1), weight[known, 0])
            # Of two classes there is the difference only.
            each = np.array([[-0.5], [0.5]]) if len(found) == 2 else np.eye(len(found))
            coef[:, found], intercept[found] = (each @ model.coef_).T, each @ model.intercept_
        return coef, intercept


class IndependentTargets(Family):
    """Answers of which each has a map of its own."""

    @abstractmethod
    def solve_single(self, Z: Floats, value: Floats, weight: Floats) -> tuple[Floats, float]:
        """Weights (k,) and bias for one answer (n,)."""

    def solve(self, Z: Floats, values: Floats, weight: Floats) -> tuple[Floats, Floats]:
        maps = [self.solve_single(Z, *pair) for pair in zip(values.T, weight.T, strict=True)]
        return np.stack([coef for coef, _ in maps], axis=1), np.array([bias for _, bias in maps])


class Labels(IndependentTargets):
    """Labels that are there or not, each on its own: sigmoids."""

    def loss(self, out: Tensor, values: Tensor) -> Tensor:
        return F.softplus(out) - values * out

    def solve_single(self, Z: Floats, value: Floats, weight: Floats) -> tuple[Floats, float]:
        there, absent = weight @ value, weight @ (1 - value)
        if min(there, absent) > 0:
            known = weight > 0
            model = _logistic().fit(Z[known], value[known], weight[known])
            return model.coef_[0], model.intercept_[0]
        # Without an example of the other kind there is no slope: half an example of each.
        return np.zeros(Z.shape[1]), float(np.log((there + 0.5) / (absent + 0.5)))


@dataclass
class Numbers(IndependentTargets):
    """Numbers with normal noise of variance 1 in units of their own: least squares."""

    center: Floats
    scale: Floats

    @classmethod
    def standardize(cls, y: Floats, weight: Floats) -> "tuple[Numbers, Targets]":
        """The family for numbers (n, m), NaN where not known, and these in their units."""
        known = ~np.isnan(y)
        values, counts = np.nan_to_num(y), weight[:, None] * known
        total = counts.sum(axis=0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            center = (counts * values).sum(axis=0) / total
            scale = np.sqrt((counts * (values - center) ** 2).sum(axis=0) / total)
        if not np.isfinite(scale).all():
            raise ValueError(
                f"Column {np.isfinite(scale).argmin()} of y has no variance that can be computed: "
                "scale it, or give rows where it is known a positive sample_weight."
            )
        scale = np.where(scale > 0, scale, 1.0)
        return cls(center, scale), Targets(known * (values - center) / scale, known.astype(float))

    def loss(self, out: Tensor, values: Tensor) -> Tensor:
        return 0.5 * (out - values) ** 2

    def solve_single(self, Z: Floats, value: Floats, weight: Floats) -> tuple[Floats, float]:
        known = weight > 0
        # Where training starts, all rows with a target may be held out.
        if not known.any():
            return np.zeros(Z.shape[1]), 0.0
        model = Ridge().fit(Z[known], value[known], weight[known])
        return model.coef_, model.intercept_

    def to_user_units(self, coef: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        return coef * self.scale, intercept * self.scale + self.center


def _logistic() -> LogisticRegression:
    return LogisticRegression(tol=1e-7, max_iter=10_000)


def center_and_scale(Z: Floats, weight: Floats) -> tuple[Floats, float]:
    """Mean of codes, and one deviation for all their components.

    A ridge penalty then spares the components that differ most between rows. Codes that differ by
    no more than rounding errors stay as they are.
    """
    center = np.average(Z, axis=0, weights=weight)
    scale = np.sqrt(np.average((Z - center) ** 2, axis=0, weights=weight).mean())
    return center, scale if scale > ROUNDING * (1 + np.abs(center).max()) else 1.0


def fit_linear_map(
    family: Family, Z: Floats, targets: Targets, weight: Floats
) -> tuple[Floats, Floats]:
    """Weights (k, n_outputs) and biases that tell answers from codes best."""
    some = targets.any_observed
    targets, Z, weight = targets.take(some), Z[some], weight[some]
    center, scale = center_and_scale(Z, weight)
    counts = targets.observed * weight[:, None]
    coef, intercept = family.solve((Z - center) / scale, targets.values, counts)
    coef = coef / scale
    return family.to_user_units(coef, intercept - center @ coef)


class Head(AuxiliaryLoss):
    """A linear map from codes to answers, which shapes the codes while it is trained.

    It starts at its best for the codes that training starts from. Targets are the answers.

    Parameters
    ----------
    family : Family
    price : float
        What a nat of an answer costs.
    share : float
        What the autoencoder's own objective counts.
    """

    center: Tensor
    scale: Tensor
    price: Tensor
    share: Tensor

    def __init__(self, family: Family, price: float, share: float) -> None:
        super().__init__()
        self.family = family
        # Buffers tell a fit that a checkpoint may belong to from others.
        self.register_buffer("share", torch.tensor(float(share)))
        self.register_buffer("price", torch.tensor(float(price)))

    @torch.no_grad()
    def start(self, codes: Tensor, batch: Batch) -> None:
        known = (codes, batch.weight, *_targets(batch))
        Z, share, values, counts = (t.cpu().double().numpy() for t in known)
        center, scale = center_and_scale(Z, share)
        coef, intercept = self.family.solve((Z - center) / scale, values, counts * share[:, None])
        self.register_buffer("center", torch.from_numpy(center).to(codes))
        self.register_buffer("scale", torch.tensor(scale).to(codes))
        self.linear = Dense(*coef.shape).to(codes)
        self.linear.weight.copy_(torch.from_numpy(coef.T))
        self.linear.bias.copy_(torch.from_numpy(intercept))

    def forward(self, losses: Tensor, code: Code, batch: Batch) -> Tensor:
        values, counts = _targets(batch)
        loss = self.family.loss(self.linear((code.z - self.center) / self.scale), values)
        price = self.price * (counts * loss).sum(-1).reshape(-1, len(counts)).mean(0)
        return self.share * losses + price

    def penalized(self) -> list[Tensor]:
        return [self.linear.weight]


def _targets(batch: Batch) -> tuple[Tensor, Tensor]:
    assert batch.targets is not None
    assert batch.target_weight is not None
    return batch.targets, batch.target_weight
