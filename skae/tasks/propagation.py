"""Estimates of missing targets, from a linear model and from the targets of similar rows."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import cg
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from skae.nn.encoding import OneHot
from skae.table.rows import Rows
from skae.table.targets import Targets
from skae.tasks.units import Units
from skae.training.heads import Classes, Family, Numbers, fit_logistic
from skae.training.threads import one_thread

Floats = NDArray[np.floating]

REACH = 4.0
"""Absolute value at which cells are clipped, so that no single cell dominates a distance."""

MIN_ROWS, MAX_ROWS = 3, 10_000
"""Smallest and largest number of distinct rows between which targets are spread."""

MAX_KNOWN = 0.3
"""Share of the total weight of rows with a known target above which missing ones are not estimated.
A network learns more from many targets than from estimates."""

N_NEIGHBORS = 10
"""Number of nearest neighbors to which a row is connected."""

SPREAD = 0.95
"""Share of the target of a row that it takes from its neighbors in label spreading. It is larger
than the 0.2 of scikit-learn's LabelSpreading, because the targets of few rows must reach far."""

FOLDS = 10
"""Number of folds in which known targets are held out to weight the two estimates."""

UNCERTAINTY = 0.05
"""Probability that a row has a random class, whatever the models estimate."""

LEAST_REACHED = 1e-6
"""Weight of the mean of known values in label spreading, relative to the largest weight of known
values that reaches a row. It exceeds the rounding errors."""

MIN_VARIANCE = 1e-6
"""Smallest variance of the errors of estimated numbers, in variances of the numbers."""

POWERS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Powers to which probabilities, relative to prior ones, are raised. The one that explains held-out
classes best is used, because models of few rows are too uncertain."""

N_MIXING_STEPS = 100
"""Number of steps of the EM algorithm for the weights of both estimates."""


class Kind(ABC):
    """Kind of a single target, whose values (n, c) are one-hot encoded classes or a number."""

    max_ratio: float
    """Largest weight of all estimates together, divided by that of all known values."""

    @abstractmethod
    def linear(self, Z: Floats, values: Floats, weight: Floats, rows: Floats) -> Floats:
        """Estimate the values of `rows` by a linear model of the known rows `Z`."""

    @abstractmethod
    def from_neighbors(self, sums: Floats, total: Floats, prior: Floats) -> Floats:
        """Estimate values from weighted sums (n, c) of known values, and their weights (n, 1).

        The weights are positive.
        """

    @abstractmethod
    def likelihood(self, estimate: Floats, values: Floats, weight: Floats, prior: Floats) -> Floats:
        """Compute the likelihoods (n,) of known values with weights (n,) under estimates of them.

        `prior` (c,) is the mean of known values.
        """

    def sharpen(self, estimate: Floats, prior: Floats, power: float) -> Floats:
        """Return estimates that are farther from the prior ones the larger the power is."""
        return estimate

    @abstractmethod
    def decide(self, estimate: Floats, explained: float) -> tuple[Floats, Floats]:
        """Return the most likely values, and how certain estimates are, in [0, 1].

        `explained` is the share of the variance of held-out values that estimates explain.
        """


class Class(Kind):
    """One-hot encoded classes."""

    max_ratio = np.inf

    def linear(self, Z: Floats, values: Floats, weight: Floats, rows: Floats) -> Floats:
        counts = weight[:, None] * values
        found = np.flatnonzero(counts.sum(axis=0))
        estimate = np.zeros((len(rows), values.shape[1]))
        estimate[:, found] = 1.0
        if len(found) > 1:
            model = fit_logistic(Z, counts, 1.0)
            estimate[:, model.classes_] = model.predict_proba(rows)
        return estimate

    def from_neighbors(self, sums: Floats, total: Floats, prior: Floats) -> Floats:
        ratio = np.divide(sums, total * prior, out=np.ones_like(sums), where=prior > 0)
        # Label spreading shrinks probabilities towards the prior ones. The square undoes it partly.
        estimate: Floats = prior * ratio.clip(0.0) ** 2
        return estimate / estimate.sum(axis=1, keepdims=True)

    def likelihood(self, estimate: Floats, values: Floats, weight: Floats, prior: Floats) -> Floats:
        smooth = (1 - UNCERTAINTY) * estimate + UNCERTAINTY * prior
        likelihood: Floats = (smooth * values).sum(axis=1)
        return likelihood

    def sharpen(self, estimate: Floats, prior: Floats, power: float) -> Floats:
        ratio = np.divide(estimate, prior, out=np.zeros_like(estimate), where=prior > 0)
        # The largest ratio becomes 1, so that no power of it overflows.
        sharp: Floats = prior * (ratio / ratio.max(axis=1, keepdims=True)) ** power
        return sharp / sharp.sum(axis=1, keepdims=True)

    def decide(self, estimate: Floats, explained: float) -> tuple[Floats, Floats]:
        second, first = np.sort(estimate, axis=1)[:, -2:].T
        return np.eye(estimate.shape[1])[estimate.argmax(axis=1)], first - second


class Number(Kind):
    """A standardized number."""

    # Estimates are less variable than numbers. Many of them would shrink the predictions.
    max_ratio = 1.0

    def linear(self, Z: Floats, values: Floats, weight: Floats, rows: Floats) -> Floats:
        estimate: Floats = Ridge().fit(Z, values[:, 0], weight).predict(rows)[:, None]
        return estimate

    def from_neighbors(self, sums: Floats, total: Floats, prior: Floats) -> Floats:
        return sums / total

    def likelihood(self, estimate: Floats, values: Floats, weight: Floats, prior: Floats) -> Floats:
        error = ((estimate - values) ** 2)[:, 0]
        variance = max(np.average(error, weights=weight), MIN_VARIANCE)
        likelihood: Floats = np.exp(-0.5 * error / variance) / variance**0.5
        return likelihood

    def decide(self, estimate: Floats, explained: float) -> tuple[Floats, Floats]:
        return estimate, np.full(len(estimate), max(0.0, explained))


class _Single:
    """A single target of the distinct rows, some of which are known.

    Parameters
    ----------
    kind : Kind
        Kind of the target.
    values : ndarray of shape (n, c)
        Values, which are only read where they are known.
    weight : ndarray of shape (n,)
        Weights of the known values, and 0 for missing ones.
    rows : ndarray of shape (n, n_inputs)
        Rows, in pseudorandom order.
    graph : sparse array of shape (n, n)
        Similarities of the rows, from which the weights of both estimates are determined.
    """

    def __init__(
        self, kind: Kind, values: Floats, weight: Floats, rows: Floats, graph: sp.csr_array
    ) -> None:
        self.kind = kind
        self.known = np.flatnonzero(weight)
        self.values, self.weight = values[self.known], weight[self.known]
        self.prior = np.average(self.values, axis=0, weights=self.weight)
        known = rows[self.known]
        self.linear = kind.linear(known, self.values, self.weight, rows)
        shape = 2, len(self.known), values.shape[1]
        held_out = np.broadcast_to(self.prior, shape).copy()
        fold = np.arange(len(self.known)) % FOLDS
        # A single known value leaves none from which it could be estimated.
        for i in range(min(FOLDS, len(self.known)) if len(self.known) > 1 else 0):
            own, rest = fold == i, fold != i
            held_out[0, own] = kind.linear(
                known[rest], self.values[rest], self.weight[rest], known[own]
            )
            held_out[1, own] = self._spread(graph, rest)[self.known[own]]
        self.share = self._mix(held_out)
        mixed = np.tensordot(self.share, held_out, 1)
        self.power = max(POWERS, key=lambda power: self._log_likelihood(mixed, power))
        error = self.weight @ (self.values - mixed) ** 2
        total = self.weight @ (self.values - self.prior) ** 2
        self.explained = float(1 - error.sum() / total.sum()) if total.sum() > 0 else 0.0

    def _spread(self, graph: sp.csr_array, used: NDArray[np.bool_]) -> Floats:
        """Estimate the target of all rows from the `used` known values by label spreading."""
        weight = (self.weight * used)[:, None]
        start = np.zeros((graph.shape[0], self.values.shape[1] + 1))
        start[self.known] = np.hstack([weight * self.values, weight])
        reached = _solve(graph, start)
        sums, total = reached[:, :-1], reached[:, -1:].clip(0.0)
        # Far from all known values, what has reached a row is a rounding error. The estimate is
        # the mean there.
        least = LEAST_REACHED * total.max()
        return self.kind.from_neighbors(sums + least * self.prior, total + least, self.prior)

    def _mix(self, held_out: Floats) -> Floats:
        """Return the weights of both estimates, those of a mixture that explains known values.

        The prior of the weights is a Dirichlet distribution with parameters of 2, so that a few
        values that one estimate explains by chance do not remove the other.
        """
        weight = self.weight / self.weight.mean()
        known = self.values, self.weight, self.prior
        parts = [self.kind.likelihood(part, *known) for part in held_out]
        likelihood, share = np.stack(parts), np.full(2, 0.5)
        for _ in range(N_MIXING_STEPS):
            joint = share[:, None] * likelihood + np.finfo(float).tiny
            share = (joint / joint.sum(axis=0)) @ weight + 1
            share = share / share.sum()
        return share

    def _log_likelihood(self, mixed: Floats, power: float) -> float:
        """Compute the log-likelihood of known values under sharpened held-out estimates."""
        sharp = self.kind.sharpen(mixed, self.prior, power)
        likelihood = self.kind.likelihood(sharp, self.values, self.weight, self.prior)
        return float(self.weight @ np.log(likelihood + np.finfo(float).tiny))

    def estimate(self, graph: sp.csr_array) -> tuple[Floats, Floats, Floats]:
        """Return expected and most likely values (n, c), and how certain they are (n,)."""
        spread = self._spread(graph, np.ones(len(self.known), dtype=bool))
        mixed = self.share[0] * self.linear + self.share[1] * spread
        expected = self.kind.sharpen(mixed, self.prior, self.power)
        return expected, *self.kind.decide(expected, self.explained)


class Completed(NamedTuple):
    """Targets in which missing ones are estimated.

    Attributes
    ----------
    expected : Targets
        Missing classes are replaced by their probabilities. The linear map is fitted to them, so
        that its probabilities are not too large.
    likely : Targets
        Missing classes are replaced by the most likely ones. The network is trained with them, so
        that its codes separate the classes.
    """

    expected: Targets
    likely: Targets


class Propagation:
    """Estimation of missing targets from known ones.

    An estimate is a weighted mean of two: that of a linear model of the rows, and that of label
    spreading [1]_, which passes known targets on to neighbors, to their neighbors, and so on. The
    weights are those of a mixture of both that explains held-out targets best. Estimated classes
    have their margins as weights, the differences between the two largest probabilities. Estimated
    numbers have the explained share of the variance of held-out numbers.

    Equal rows are one row, so that repeating a row is weighting it.

    References
    ----------
    .. [1] D. Zhou, O. Bousquet, T. N. Lal, J. Weston and B. Schölkopf, "Learning with local and
       global consistency", NeurIPS 2003.

    Parameters
    ----------
    family : Family
        Kind of the targets.
    rows : Rows
        All n rows, in the user's units.
    units : Units
        Robust units, in which rows are compared.
    first : ndarray of shape (n_distinct,), int
        Indices of the distinct rows, in pseudorandom order.
    group : ndarray of shape (n,), int
        Position of each row among them.
    targets : Targets
        Targets of all rows.
    weight : ndarray of shape (n,)
        Weights of all rows.
    """

    @one_thread
    def __init__(
        self,
        family: Family,
        rows: Rows,
        units: Units,
        first: NDArray[np.intp],
        group: NDArray[np.intp],
        targets: Targets,
        weight: Floats,
    ) -> None:
        self.family, self.targets, self.weight = family, targets, weight
        is_known = np.bincount(group, targets.any_observed) > 0
        # If there are too many rows, up to half of the chosen ones are the first known ones.
        comes_first = is_known & (is_known.cumsum() <= MAX_ROWS // 2)
        chosen = np.argsort(~comes_first, kind="stable")[:MAX_ROWS]
        position = np.full(len(first), -1)
        position[chosen] = np.arange(len(chosen))
        self.first, self.place = first[chosen], position[group]
        compared = rows.take(self.first)
        cells = _encode(replace(compared, values=units.to_network(compared.values)))
        n_components = min(*cells.shape, round(2 * cells.shape[1] ** 0.5))
        solver = "covariance_eigh" if len(cells) > cells.shape[1] else "full"
        components = PCA(n_components, svd_solver=solver).fit_transform(cells)
        self.graph = _neighbor_graph(components)
        self.singles = [
            self._single(j, cells) if is_rare else None
            for j, is_rare in enumerate(self.is_rare(targets, weight))
        ]

    @staticmethod
    def is_rare(targets: Targets, weight: Floats) -> NDArray[np.bool_]:
        """Return which targets are known in so few rows that missing ones are estimated."""
        share: Floats = weight @ (targets.observed > 0) / weight.sum()
        return (share > 0) & (share <= MAX_KNOWN)

    def _columns(self, j: int) -> Floats:
        """Return the values (n, c) of a target: one-hot encoded classes, or a number."""
        if isinstance(self.family, Classes):
            return self.targets.values
        value = self.targets.standardized[:, j : j + 1]
        return value if isinstance(self.family, Numbers) else np.hstack([1 - value, value])

    def _single(self, j: int, cells: Floats) -> _Single | None:
        """Merge the known values of a target in equal rows. None if no chosen row has one."""
        own = (self.place >= 0) & (self.targets.observed[:, j] > 0)
        if not own.any():
            return None
        place, values = self.place[own], self._columns(j)[own]
        weight = self.weight[own] * self.targets.observed[own, j]
        total: Floats = np.bincount(place, weight, len(cells)).astype(np.float64)
        sums = np.stack([np.bincount(place, weight * v, len(cells)) for v in values.T], axis=1)
        means = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=total[:, None] > 0)
        kind = Number() if isinstance(self.family, Numbers) else Class()
        return _Single(kind, means, total, cells, self.graph)

    @one_thread
    def complete(self, codes: Floats | None = None) -> Completed:
        """Return the targets, in which missing ones are estimated.

        Neighbors of rows are found by the codes (n, n_components) of all rows, or by the principal
        components of the rows if `codes` is None. Codes may have been trained with the known
        targets, so that the weights of both estimates are not determined from them.
        """
        graph = self.graph if codes is None else _neighbor_graph(codes[self.first])
        expected, likely = self.targets.values.copy(), self.targets.values.copy()
        observed = self.targets.observed.copy()
        estimated = np.zeros(observed.shape, dtype=bool)
        for j, single in enumerate(self.singles):
            if single is None:
                continue
            known = observed[:, j] > 0
            is_new = ~known & (self.place >= 0)
            *guesses, certainty = (part[self.place[is_new]] for part in single.estimate(graph))
            for values, guess in zip((expected, likely), guesses, strict=True):
                self._write(values, is_new, j, guess)
            # Class weights may have any magnitude.
            typical = np.average(observed[known, j], weights=self.weight[known])
            total = self.weight[known].sum() / max(self.weight[is_new].sum(), 1e-300)
            observed[is_new, j] = typical * certainty * min(1.0, single.kind.max_ratio * total)
            estimated[is_new, j] = True
        done = replace(self.targets, values=expected, observed=observed, estimated=estimated)
        return Completed(done, replace(done, values=likely))

    def _write(self, values: Floats, rows: NDArray[np.bool_], j: int, guess: Floats) -> None:
        """Write the values (n_new, c) of a target into those of all targets."""
        if isinstance(self.family, Classes):
            values[rows] = guess
            return
        units = self.targets.units
        center, scale = (0.0, 1.0) if units is None else (units.center[j], units.scale[j])
        values[rows, j] = guess[:, -1] * scale + center


def _encode(rows: Rows) -> Floats:
    """Return centered cells, in which categories are one-hot encoded and missing numbers are 0."""
    encoding = OneHot([*(rows.modelled_levels or (0,) * rows.n_modelled), *rows.n_levels])
    encoded = encoding(torch.from_numpy(rows.values.astype(np.float64))).numpy()
    cells: Floats = np.nan_to_num(encoded).clip(-REACH, REACH)
    return cells - cells.mean(axis=0)


def _neighbor_graph(places: Floats) -> sp.csr_array:
    """Return the normalized similarities (n, n) of rows at these places (n, k).

    Rows are similar if at least one of them is among the nearest neighbors of the other. The
    similarity is a Gaussian function of their distance, divided by that of the last neighbor, so
    that it adapts to the density of rows (Zelnik-Manor & Perona, 2004).
    """
    n = len(places)
    n_neighbors = min(N_NEIGHBORS, n - 1)
    distance, neighbor = NearestNeighbors(n_neighbors=n_neighbors).fit(places).kneighbors()
    largest = distance[:, -1:]
    ratio = np.divide(distance, largest, out=np.zeros_like(distance), where=largest > 0)
    near = sp.csr_array(
        (np.exp(-4 * ratio**2).ravel(), (np.repeat(np.arange(n), n_neighbors), neighbor.ravel())),
        shape=(n, n),
    )
    similar = near.maximum(near.T)
    root = sp.dia_array((np.asarray(similar.sum(axis=1)).ravel()[None] ** -0.5, [0]), shape=(n, n))
    return sp.csr_array(root @ similar @ root)


def _solve(graph: sp.csr_array, start: Floats) -> Floats:
    """Spread the columns of `start` (n, c) over the graph, as label spreading does at its end."""
    system = sp.eye_array(len(start)) - SPREAD * graph
    return np.stack([cg(system, column, rtol=1e-8)[0] for column in start.T], axis=1)
