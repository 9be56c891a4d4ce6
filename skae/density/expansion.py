"""Expansions of the log-likelihood of rows around their codes, to second order."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.bodies.body import Body
from skae.nn.bodies.linearization import Linearization
from skae.nn.inputs import Inputs
from skae.nn.latent import Code, Deterministic
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network
from skae.nn.prior import Prior, invertible

BLOCK_ROWS = 1024
BLOCK_BYTES = 4 * 2**20
"""Largest number of rows that are differentiated at once, and largest size in bytes of the
derivatives of one layer. They should fit into the processor's cache."""


class Subspace:
    """A network whose codes are coordinates of another network's codes along some axes.

    Parameters
    ----------
    network : Network or Subspace
        Network with codes of length k.
    center : Tensor of shape (k,)
        Code of `network` that corresponds to the code 0 of the new network.
    axes : Tensor of shape (k, m)
        Orthonormal axes. The codes of the new network have length m.
    """

    def __init__(self, network: "Decoder", center: Tensor, axes: Tensor) -> None:
        self.inputs: Inputs = network.inputs
        self.decoder: Body = network.decoder
        self.latent = Deterministic(axes.shape[1])
        self.latent.prior = network.latent.prior
        self._network, self._center, self._axes = network, center, axes

    def encode(self, batch: Batch) -> Code:
        z = (self._network.encode(batch).mean.double() - self._center) @ self._axes
        return Code(z, z, z)

    def outputs(self, z: Tensor, batch: Batch) -> Tensor:
        return self._network.outputs(self._codes(z), batch)

    def linearize(self, z: Tensor, batch: Batch, directions: Tensor | None = None) -> Linearization:
        axes = self._axes.to(z).mT
        directions = axes if directions is None else directions @ axes
        return self._network.linearize(self._codes(z), batch, directions)

    def _codes(self, z: Tensor) -> Tensor:
        return self._center.to(z) + z @ self._axes.to(z).mT


Decoder = Network | Subspace
"""Decodes and linearizes codes."""


class Point(NamedTuple):
    """Expansions of the log-likelihood of m rows. `Expansion` documents the tensors."""

    z: Tensor
    out: Tensor
    gradient: Tensor
    information: Tensor
    jacobian: Tensor | None

    def select(self, index: Tensor) -> "Point":
        """Return the expansions of the rows at an index."""
        parts: list[Any] = [None if part is None else part[index] for part in self]
        return Point(*parts)


class Expansion:
    """Second-order expansion of the log-likelihood of rows around their codes.

    In the shapes, n is the number of rows, k the number of components of a code, and d the number
    of outputs of the decoder per row. `rows`, `out` and `jacobian` have the network's dtype. The
    other tensors are float64.

    Parameters
    ----------
    network : Network or Subspace
        Network that decodes the codes.
    likelihood : Likelihood
        Distribution of rows given the outputs of the decoder.
    batch : Batch
        The rows.
    z : Tensor of shape (n, k)
        Codes around which the log-likelihood is expanded.
    keeps_jacobian : bool
        Whether the Jacobians are kept. Without them, the noise can only change by one factor.

    Attributes
    ----------
    rows : Batch
        The modelled columns of the batch.
    out : Tensor of shape (n, d)
        Outputs of the decoder at `z`.
    gradient : Tensor of shape (n, k)
        Derivative of the log-likelihood with respect to the code.
    information : Tensor of shape (n, k, k)
        Fisher information of the code.
    jacobian : Tensor of shape (n, d, k) or None
        Derivative of `out` with respect to the code, from which `gradient` and `information` are
        computed again if the noise changes.
    """

    def __init__(
        self,
        network: Decoder,
        likelihood: Likelihood,
        batch: Batch,
        z: Tensor,
        keeps_jacobian: bool = False,
    ) -> None:
        n, k = z.shape
        width = max(likelihood.n_outputs, network.decoder.n_hidden)
        row_bytes = width * k * batch.x.element_size()
        self.network = network
        self.likelihood = likelihood
        self.batch, self.rows = batch, network.inputs.modelled(batch)
        self._block_size = max(1, min(BLOCK_ROWS, BLOCK_BYTES // row_bytes))
        self._keeps_jacobian = keeps_jacobian
        self._root: Tensor | None = None
        self._errors: Tensor | None = None
        point = self.expanded(torch.arange(n, device=z.device), z.clone())
        self.z, self.out, self.gradient, self.information, self.jacobian = point

    def expanded(self, index: Tensor, z: Tensor) -> Point:
        """Expand the rows at `index` (m,), which increases, around other codes `z` (m, k)."""
        size = self._block_size
        if len(index) <= size:
            return self._expanded(index, z)
        blocks = zip(index.split(size), z.split(size), strict=True)
        tuples = zip(*[self._expanded(*block) for block in blocks], strict=True)
        parts: list[Any] = [None if part[0] is None else torch.cat(part) for part in tuples]
        return Point(*parts)

    def _expanded(self, index: Tensor, z: Tensor) -> Point:
        whole = len(index) == len(self.batch.x)
        batch = self.batch if whole else select_rows(self.batch, index)
        rows = self.network.inputs.modelled(batch)
        linear = self.network.linearize(z.to(batch.x), batch)
        factors = None if self._keeps_jacobian else linear.factors()
        root = None if factors is None else self._information_root(rows, *factors)
        if factors is None or root is None:
            jacobian = linear.jacobian()
            gradient, information = self._derivatives(rows, linear.out, jacobian)
        else:
            # The outputs may be many more than the features, so their Jacobian is not computed.
            features, weight = factors
            score = self.likelihood.score(rows, linear.out) @ weight
            gradient = (score[:, None] @ features)[:, 0].double()
            product = (features.permute(2, 0, 1) @ root.mT).permute(1, 0, 2).double()
            information = product @ product.mT
        kept = jacobian.mT.contiguous().mT if self._keeps_jacobian else None
        return Point(z, linear.out, gradient, information, kept)

    def _information_root(self, rows: Batch, features: Tensor, weight: Tensor) -> Tensor | None:
        """Return the triangular factor (h, h) of the information of features, if it pays.

        `features` has the shape (n, h, k) and `weight` the shape (d, h).
        """
        information = self.likelihood.common_information(rows)
        (h, k), d, n = features.shape[1:], len(weight), len(self.batch.x)
        if information is None or n * k * (d - h) < 4 * d * h:
            return None
        if self._root is None:
            scaled = information.double().sqrt()[:, None] * weight.double()
            self._root = torch.linalg.qr(scaled, mode="r").R.to(weight)
        return self._root

    def gradients(self, index: Tensor, z: Tensor) -> Tensor:
        """Compute the gradients (m, k) of the rows at `index` (m,) for codes `z` (m, k).

        The codes of the expansion stay as they are.
        """
        parts, network = [], _differentiable(self.network)
        for block, codes in zip(index.split(BLOCK_ROWS), z.split(BLOCK_ROWS), strict=True):
            batch = select_rows(self.batch, block)
            rows = self.network.inputs.modelled(batch)
            with torch.inference_mode(False), torch.enable_grad():
                point = codes.to(batch.x).clone().requires_grad_()
                out = network.outputs(point, batch)
            score = self.likelihood.score(rows, out.detach())
            (gradient,) = torch.autograd.grad(out, point, score, materialize_grads=True)
            parts.append(gradient.double())
        return torch.cat(parts)

    def put(self, index: Tensor, point: Point) -> None:
        """Replace the expansions of the rows at `index` (m,)."""
        self._errors = None
        self.z[index], self.out[index] = point.z, point.out
        self.gradient[index], self.information[index] = point.gradient, point.information
        if self.jacobian is not None and point.jacobian is not None:
            self.jacobian[index] = point.jacobian

    def set_likelihood(self, likelihood: Likelihood) -> None:
        """Replace the likelihood by one of the same family and update the derivatives."""
        factor = self.factor(likelihood)
        if factor != 1:
            self.gradient *= factor
            self.information *= factor
        self.likelihood, self._root = likelihood, None

    def factor(self, likelihood: Likelihood) -> float:
        """Return the ratio of derivatives under another noise to those of the expansion.

        If the Jacobians are kept, it is 1, because the likelihood is replaced.
        """
        if likelihood is self.likelihood:
            return 1.0
        if self.jacobian is None:
            return float(likelihood.rescaled(self.likelihood))
        self.likelihood = likelihood
        for block in self._blocks():
            rows = select_rows(self.rows, block)
            self.gradient[block], self.information[block] = self._derivatives(
                rows, self.out[block], self.jacobian[block]
            )
        return 1.0

    def precision(
        self, prior: Prior, index: Tensor | slice = slice(None), factor: float = 1.0
    ) -> Tensor:
        """Compute the precisions (m, k, k) of the codes given the rows at an index.

        The information is multiplied by `factor`. If the noise is so small that the precision of
        the prior is lost to rounding, a decoder that ignores a direction of the codes has a
        singular matrix, which is made invertible.
        """
        z, information = self.z[index], self.information[index]
        return invertible(torch.add(prior.precision(z), information, alpha=factor))

    def squares(
        self,
        likelihood: Likelihood,
        factor: float,
        shift: Tensor,
        covariance: Tensor,
        bessel: Tensor,
    ) -> Tensor:
        """Compute the expected squared errors for codes that follow N(z + shift, covariance).

        The decoder is linearized at `z`.

        Parameters
        ----------
        likelihood : Likelihood
            Likelihood with the current noise.
        factor : float
            Result of the method `factor` for this likelihood.
        shift : Tensor of shape (n, k)
            Difference between the mean of each code and `z`.
        covariance : Tensor of shape (n, k, k)
            Covariance of each code.
        bessel : Tensor of shape ()
            Bessel's correction. It multiplies the squared errors at the means of the codes, but not
            the part that the covariance adds.

        Returns
        -------
        squares : Tensor of shape (n, n_columns) or (n, 1)
            Expected squared errors of cells, 0 for missing ones. If the likelihood has a common
            scale, they are averaged over the columns of each row.
        """
        if self.jacobian is None:
            if self._errors is None:
                self._errors = likelihood.squares(self.rows, self.out).sum(-1).double()
            slope = (self.information @ shift[..., None])[..., 0] - 2 * self.gradient
            spread = torch.einsum("nij,nij->n", self.information, covariance)
            change = (slope * shift).sum(-1)
            return likelihood.row_squares(self._errors, factor * change, factor * spread, bessel)
        squares = torch.empty_like(self.rows.x)
        for block in self._blocks():
            jacobian, rows = self.jacobian[block], select_rows(self.rows, block)
            out = self.out[block] + (jacobian @ shift[block].to(rows.x)[..., None])[..., 0]
            variance = (jacobian @ covariance[block].to(rows.x) * jacobian).sum(-1)
            squares[block] = likelihood.squares(rows, out, variance, bessel)
        return squares.double()

    def _blocks(self) -> list[slice]:
        """Return slices of all rows in blocks."""
        size = self._block_size
        return [slice(i, i + size) for i in range(0, len(self.z), size)]

    def _derivatives(self, rows: Batch, out: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradient and the information of rows.

        They are sums of products in float64, so that the information is semidefinite.
        """
        # Tensors whose strides increase are converted several times faster.
        jacobian = jacobian.mT.double().mT
        score = self.likelihood.score(rows, out).double()
        gradient = (score[:, None] @ jacobian)[:, 0]
        return gradient, self.likelihood.information(rows, out, jacobian)


def _differentiable(network: Decoder) -> Decoder:
    """Return the network, or a copy if it was made in inference mode, which autograd refuses."""
    if not any(weights.is_inference() for weights in network.decoder.parameters()):
        return network
    with torch.inference_mode(False):
        return copy.deepcopy(network)


def select_rows(batch: Batch, index: Tensor | slice) -> Batch:
    """Return the rows of a batch at an index."""
    return batch.map(lambda part: part[index])
