"""Derivatives of codes with respect to rows, and of decoded rows with respect to codes.

They are in the user's units or, in `StandardizedCells`, in those in which the network reads rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skae.inference import BLOCK_ROWS, code_units, map_codes, map_rows
from skae.nn.batch import Batch
from skae.nn.draws import Draws
from skae.nn.latent import Code
from skae.nn.network import Network
from skae.state import Fitted
from skae.table.rows import Floats, Rows
from skae.table.sequences import column_means
from skae.training.tensors import tensor

PATH_POINTS = 16
"""Number of points at which the integrals of `integrated_gradients` evaluate derivatives."""

BLOCK_CELLS = 2**22
"""Largest number of derivatives that are computed at once, unless one row has more."""


def encoder_jacobian(rows: Rows, fitted: Fitted) -> Floats:
    """Compute the derivatives (n, k, n_columns) of codes with respect to the cells of rows.

    Those with respect to conditions and to missing cells are 0.
    """
    scale = code_units(fitted, fitted.network)[1]
    return _map(lambda batch: _jacobian(batch, fitted) * scale[:, None], rows, fitted)


def integrated_gradients(rows: Rows, fitted: Fitted) -> Floats:
    """Attribute the codes of rows to their cells, (n, k, n_columns).

    The attributions of a row add up to the difference between its code and that of the mean row
    with the same missing cells, the same conditions and, if codes contain noise, the same noise.
    """
    network = fitted.network
    scale = code_units(fitted, network)[1]
    mean = tensor(column_means(rows.modelled, np.ones(len(rows))), network)
    nodes, shares = np.polynomial.legendre.leggauss(PATH_POINTS)

    def noise(batch: Batch) -> Draws | None:
        return network.latent.inference_draws(network.inputs.modelled(batch).x)

    def attribute(batch: Batch) -> Tensor:
        cells = batch.x[:, : len(mean)]
        missing = cells.isnan()
        difference = (cells - mean).nan_to_num()

        def point(share: float) -> Batch:
            x = batch.x.clone()
            x[:, : len(mean)] = (mean + share * difference).masked_fill(missing, torch.nan)
            return batch._replace(x=x)

        gradient = sum(
            share / 2 * _jacobian(point((1 + node) / 2), fitted, noise(batch))
            for node, share in zip(nodes.tolist(), shares.tolist(), strict=True)
        )
        parts = gradient * scale[:, None] * difference[:, None]
        # The code of the mean row has the noise of the row, if codes contain noise.
        start = network.encode(point(0.0), noise(batch)).mean
        change = network.encode(batch, noise(batch)).mean - start
        return _completed(parts.double(), change.double() * scale, ~missing)

    return _map(attribute, rows, fitted)


def decoder_jacobian(rows: Rows, fitted: Fitted) -> Floats:
    """Compute the derivatives (n, n_columns, k) of expected rows with respect to codes.

    They are those at the codes of rows, under their conditions. Those of conditions are 0.
    """
    network = fitted.network
    scale = code_units(fitted, network)[1]

    def derive(batch: Batch) -> Tensor:
        return network.mean_jacobian(network.encode(batch).mean, batch).mT / scale[:, None]

    return _map(derive, rows, fitted).swapaxes(1, 2)


@dataclass(frozen=True)
class StandardizedCells:
    """Encoded and standardized modelled cells of rows, and how they depend on codes.

    They are the cells that the network reads, but without the effects of conditions.

    Attributes
    ----------
    rows : Rows
        The n rows.
    fitted : Fitted
        The model.
    """

    rows: Rows
    fitted: Fitted

    def values(self) -> Floats:
        """Compute the cells (n, n_encoded), in float64. Missing ones are NaN."""
        inputs = self.fitted.network.inputs
        cells = torch.from_numpy(self.rows.modelled.astype(np.float64))
        encoded = inputs.standardize(inputs.encoding(cells))
        return encoded.masked_fill(inputs.encoding.spread(cells.isnan()), torch.nan).numpy()

    def decode(self, Z: Floats) -> Floats:
        """Compute the expected cells (n, n_encoded) of codes (n, k), with conditions of the rows.

        Levels of categories have their probabilities.
        """
        network = self.fitted.network

        def expected(out: Tensor) -> Tensor:
            return network.inputs.standardize(network.likelihood.expected(out))

        return map_codes(expected, Z, self.rows.conditions, self.fitted, network, "Z")

    def encoder_jacobian(self) -> Floats:
        """Compute the derivatives (n, k, n_encoded) of codes with respect to cells.

        Those with respect to missing cells are 0.
        """
        network = self.fitted.network
        inputs, scale = network.inputs, code_units(self.fitted, network)[1]

        def derive(batch: Batch) -> Tensor:
            own = inputs.modelled(batch)
            with torch.enable_grad():
                u = inputs(batch).detach().requires_grad_()
                draws = network.latent.inference_draws(own.x)
                gradients = _gradients(network.latent(network.encoder(u), draws), u, network)
            missing = inputs.encoding.spread(own.x.isnan())
            cells = gradients[..., : inputs.n_encoded].masked_fill(missing[:, None], 0.0)
            return cells * scale[:, None]

        return self._map(derive)

    def decoder_jacobian(self) -> Floats:
        """Compute the derivatives (n, n_encoded, k) of expected cells by the codes of the rows."""
        network = self.fitted.network
        scale = code_units(self.fitted, network)[1]

        def derive(batch: Batch) -> Tensor:
            jacobian = network.mean_jacobian(network.encode(batch).mean, batch)
            return (jacobian.mT / (scale[:, None] * network.inputs.scale)).mT

        return self._map(derive)

    def _map(self, function: Callable[[Batch], Tensor]) -> Floats:
        block_rows = _block_rows(self.fitted)
        return map_rows(function, self.rows, self.fitted, np.float64, block_rows=block_rows)


def _block_rows(fitted: Fitted) -> int:
    """Return the number of rows whose derivatives are computed at once."""
    width = max(fitted.schema.n_columns, fitted.network.inputs.n_outputs)
    return max(1, min(BLOCK_ROWS, BLOCK_CELLS // (fitted.network.latent.n_outputs * width)))


def _map(function: Callable[[Batch], Tensor], rows: Rows, fitted: Fitted) -> Floats:
    """Apply a function of batches, which returns cells (n, k, n_modelled), to blocks of rows.

    The result has the shape (n, k, n_columns). The columns of conditions are 0.
    """
    if fitted.network.inputs.encoding.n_categories:
        raise ValueError(
            "Derivatives are not defined for this model, because columns of X hold categories. Use "
            "skae.metrics.feature_attribution without per_row, or skae.metrics.loadings, which "
            "compute them in standardized units, or encode the categories as numbers."
        )
    k = fitted.network.latent.n_outputs
    cells = map_rows(function, rows, fitted, np.float64, block_rows=_block_rows(fitted))
    return fitted.schema.arrange(cells.reshape(-1, cells.shape[2])).reshape(len(cells), k, -1)


def _jacobian(batch: Batch, fitted: Fitted, draws: Draws | None = None) -> Tensor:
    """Compute the derivatives (n, k, n_modelled) of the network's codes, 0 for missing cells.

    Without `draws`, codes that contain noise have that of their rows.
    """
    network = fitted.network
    with torch.enable_grad():
        x = batch.x.detach().clone().requires_grad_()
        gradients = _gradients(network.encode(batch._replace(x=x), draws), x, network)
    cells = gradients[..., : network.inputs.n_modelled]
    return cells.masked_fill(network.inputs.modelled(batch).x.isnan()[:, None], 0.0)


def _gradients(code: Code, x: Tensor, network: Network) -> Tensor:
    """Compute the derivatives (n, k, d) of smooth codes with respect to rows x (n, d)."""
    # Rows do not influence each other, so that the gradient of a sum has that of each row.
    rows = [
        torch.autograd.grad(column.sum(), x, retain_graph=True, materialize_grads=True)[0]
        for column in network.latent.smooth(code).unbind(1)
    ]
    return torch.stack(rows, 1)


def _completed(parts: Tensor, total: Tensor, observed: Tensor) -> Tensor:
    """Distribute the rest of a total (n, k) over its parts (n, k, d), so that they add up to it.

    The rest is distributed in proportion to the absolute parts or, if all of them are 0, equally
    over the observed cells.
    """
    weight = parts.abs()
    is_empty = weight.sum(-1, keepdim=True) == 0
    weight = torch.where(is_empty, observed[:, None].to(weight), weight)
    rest = total - parts.sum(-1)
    return parts + rest[..., None] * weight / weight.sum(-1, keepdim=True).clamp_min(1e-300)
