"""Predictions of a fitted model for rows and codes, computed block by block."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae.density.expansion import select_rows
from skae.density.importance import Importance
from skae.density.laplace import Laplace
from skae.nn.batch import Batch
from skae.nn.draws import Draws, derive_seed
from skae.nn.network import Network
from skae.nn.prior import NormalPrior
from skae.state import Fitted
from skae.table.components import UndefinedError
from skae.table.rows import Floats, Rows
from skae.training.precision import or_float64
from skae.training.tensors import make_batch, tensor, to_float64_device
from skae.training.threads import one_thread

BLOCK_ROWS = 2048
"""Largest number of rows per block. Larger blocks do not fit into the processor's cache."""

DENSITY_ROWS, DENSITY_CELLS = 8192, 2**19
"""Largest number of rows per block for densities, and largest number of cells in blocks of more
than `BLOCK_ROWS` rows. Densities divide blocks further where they use much memory. They have many
passes over few rows of a block, which take less time in large blocks."""


def map_rows(
    function: Callable[[Batch], Tensor],
    rows: Rows,
    fitted: Fitted,
    dtype: Any = None,
    network: Network | None = None,
    block_rows: int = BLOCK_ROWS,
) -> Floats:
    """Apply a function of batches to rows, block by block.

    Parameters
    ----------
    function : callable
        Maps a batch of n rows to a tensor of shape (n, ...).
    rows : Rows
        Rows of a table.
    fitted : Fitted
        Fitted model.
    dtype : dtype or None, default=None
        dtype of the result. None is the dtype of the rows.
    network : Network or None, default=None
        Network whose dtype and device the batches have. None is the fitted network.
    block_rows : int, default=BLOCK_ROWS
        Largest number of rows per block.

    Returns
    -------
    result : ndarray of shape (n_rows, ...)
        Values of the function.

    Raises
    ------
    ValueError
        If the result is not finite.
    """
    like = network or fitted.network
    result = _map_blocks(lambda block: function(make_batch(block, like)), rows, block_rows)

    return _check_finite(result, dtype or rows.values.dtype, like, _farthest_cell(rows, fitted))


def _farthest_cell(rows: Rows, fitted: Fitted) -> Callable[[int], str]:
    """Return a function that describes the cell of row `i` that is farthest from training rows."""

    def farthest(row: int) -> str:
        cells = rows.values[row].astype(np.float64)
        j = _largest(fitted.network.inputs.distances(torch.from_numpy(cells)))
        return f"Column {fitted.schema.column_label(j)} of X contains {cells[j]:g} in row {row}"

    return farthest


def _largest(distances: Tensor) -> int:
    """Return the index of the largest distance. Missing cells have none."""
    return int(distances.nan_to_num(-1.0, torch.inf).argmax())


def codes(rows: Rows, fitted: Fitted) -> Floats:
    """Compute the codes (n, k) of rows, in the dtype of the rows. k is the latent's `n_outputs`."""
    return map_rows(user_codes(fitted), rows, fitted)


def activations(rows: Rows, fitted: Fitted, decodes: bool) -> Floats:
    """Compute the inputs of the encoder and the activations of its hidden layers, side by side.

    Returns an array (n, n_inputs + n_units). Missing cells of inputs are 0. Inputs for categories
    are centered, but not scaled. `decodes` is whether the hidden layers of the decoder follow those
    of the encoder. If no hidden layers are known, the codes are the only units.
    """
    network, encode = fitted.network, user_codes(fitted)

    def layers(batch: Batch) -> Tensor:
        inputs = network.inputs.unscaled(network.inputs(batch)).nan_to_num()
        return torch.cat([inputs, *(network.hidden(batch, decodes) or [encode(batch)])], -1)

    return map_rows(layers, rows, fitted)


def restoration(fitted: Fitted) -> Callable[[Batch], Tensor]:
    """Return a function that encodes rows and decodes their codes to outputs (n, n_outputs).

    The codes are converted to the user's units and back, so that the results have the same bits as
    those of `decode` for the results of `codes`.
    """
    network, encode = fitted.network, user_codes(fitted)
    offset, scale = code_units(fitted, network)

    def restored(batch: Batch) -> Tensor:
        return network.outputs(encode(batch) / scale + offset, batch)

    return restored


def user_codes(fitted: Fitted) -> Callable[[Batch], Tensor]:
    """Return a function that computes the codes (n, k) of rows, in the user's units.

    If a cell is missing in a column that had no missing cells in the fit, the code of the row is
    the most probable one given its observed cells. Codes that contain noise are an exception.
    """
    network = fitted.network
    offset, scale = code_units(fitted, network)

    def is_drawn(batch: Batch) -> bool:
        return network.latent.inference_draws(batch.x) is not None

    def encode(batch: Batch) -> Tensor:
        z = network.encode(batch).mean
        unexpected = network.inputs.unexpected(batch)
        if unexpected is not None and unexpected.any() and not is_drawn(batch):
            z = z.clone()
            z[unexpected] = fitted.density.mode(network, select_rows(batch, unexpected)).to(z)
        return (z - offset) * scale

    return encode


def code_units(fitted: Fitted, network: Network) -> tuple[Tensor, Tensor]:
    """Return an offset and a scale (k,): users see (z - offset) * scale for codes z (n, k).

    `network` determines the dtype and the device.
    """
    components = fitted.components
    return tensor(components.offset, network), tensor(components.scale, network)


@torch.no_grad()
def linear_map(fitted: Fitted) -> tuple[Floats, Floats]:
    """Return the components (k, d) and the mean (d,) of a linear model.

    Codes before whitening are (x - mean) @ components.T. Raises UndefinedError unless the encoder,
    the decoder and the expected rows are linear and the axes of the codes are free.
    """
    network, units = _linear_network(fitted), fitted.components
    center, scale = (part.cpu().double() for part in (network.inputs.center, network.inputs.scale))
    eye = torch.eye(len(center), network.inputs.n_outputs).to(network.like)
    linear = network.encoder.linearize(torch.zeros_like(eye[:1]), eye)
    matrix = linear.jacobian()[0].cpu().double()
    shift = torch.from_numpy(units.offset) - linear.out[0].cpu().double()
    inverse = torch.linalg.pinv(matrix)
    offset = inverse @ shift
    if len(network.inputs.missing):
        # The mean of observed cells differs from the mean of rows along axes that the encoder does
        # not see.
        code = tensor(units.offset[None], network)
        decoded = network.likelihood.mean(network.outputs(code, Batch(code, code[:, 0])))
        rest = (decoded[0].cpu().double() - center) / scale - offset
        offset = offset + rest - inverse @ (matrix @ rest)
    mean = center + scale * offset
    return (units.unit / scale * matrix).numpy(), mean.numpy()


@torch.no_grad()
def linear_covariance(fitted: Fitted) -> Floats:
    """Return the covariance (d, d) of rows under a linear model. Raises as `linear_map`."""
    network, density = _linear_network(fitted), cast(Laplace, fitted.density)
    prior = cast(NormalPrior, density.prior).covariance.cpu()
    z = network.like.new_zeros(1, len(prior))
    # The derivatives of a linear decoder do not depend on the code.
    axes = network.mean_jacobian(z, Batch(z, z[:, 0]))[0].cpu().double()
    noise = density.likelihood.noise_variance.cpu().double()
    return (axes @ prior @ axes.mT + noise.expand(len(axes)).diag()).numpy()


def linear_precision(fitted: Fitted) -> Floats:
    """Return the inverse of `linear_covariance`, or raise ValueError if it is singular."""
    covariance = linear_covariance(fitted)
    values, axes = np.linalg.eigh(covariance)
    if values[0] <= len(values) * np.finfo(np.float64).eps * values[-1]:
        raise ValueError(
            "The covariance is singular up to rounding errors, because the noise variance is too "
            "small. Reduce n_components or set noise to a larger number."
        )
    precision: Floats = (axes / values) @ axes.T
    return precision


def _linear_network(fitted: Fitted) -> Network:
    """Return the network of a linear model, or raise UndefinedError."""
    network = fitted.network
    is_linear = network.encoder.is_linear and network.decoder.is_linear
    if not (is_linear and network.latent.has_free_axes and network.likelihood.is_linear):
        raise UndefinedError(
            "This is defined for linear autoencoders only: hidden_layer_sizes=(), "
            "likelihood='gaussian' and deterministic codes without a prior or a penalty on "
            "components. skae.metrics.loadings describes the components of all autoencoders."
        )
    return network


def map_codes(
    function: Callable[[Tensor], Tensor],
    Z: Floats,
    conditions: Floats | None,
    fitted: Fitted,
    network: Network,
    name: str = "X",
) -> Floats:
    """Apply a function to the decoder's outputs for codes, block by block.

    Parameters
    ----------
    function : callable
        Maps the decoder's outputs for m codes, a tensor of shape (m, n_outputs), to a tensor of
        shape (m, ...).
    Z : ndarray of shape (n, k)
        Codes in the user's units.
    conditions : ndarray of shape (n, n_conditions) or None
        Conditions of the codes, if the decoder receives conditions.
    fitted : Fitted
        Fitted model, whose schema describes the conditions.
    network : Network
        Network whose decoder is used: that of the fitted model, or a copy on another device.
    name : str, default="X"
        Name of the codes in error messages.

    Returns
    -------
    result : ndarray of shape (n, ...)
        Values of the function, in the dtype of the codes.

    Raises
    ------
    ValueError
        If the result is not finite.
    """
    if conditions is None:
        conditions = np.zeros((len(Z), 0))
    # The decoder reads the conditions from a batch of rows, whose modelled cells it ignores.
    n_levels = fitted.schema.n_levels
    blank = len(fitted.schema.modelled) if n_levels else 0
    offset, scale = code_units(fitted, network)

    def block(rows: Rows) -> Tensor:
        z, cells = rows.values[:, : Z.shape[1]], rows.values[:, Z.shape[1] :]
        values = np.hstack([np.zeros((len(z), blank), Z.dtype), cells])
        batch = make_batch(Rows(values, n_levels), network)
        return function(network.outputs(tensor(z, network) / scale + offset, batch))

    def farthest(row: int) -> str:
        cells = np.append(np.full(len(fitted.schema.modelled), np.nan), conditions[row])
        far = network.inputs.distances(torch.from_numpy(cells))
        j = _largest(far)
        if far[j] > np.abs(Z[row]).max():
            return f"Column {fitted.schema.column_label(j)} of the condition is {cells[j]:g}"
        j = int(np.abs(Z[row]).argmax())
        return f"Column {j} of {name} contains {Z[row, j]:g} in row {row}"

    both = np.hstack([Z, conditions.astype(Z.dtype)]) if conditions.shape[1] else Z
    result = _map_blocks(block, Rows(both))
    return _check_finite(result, Z.dtype, network, farthest)


def decode(Z: Floats, conditions: Floats | None, fitted: Fitted, index: Any = None) -> Any:
    """Compute the expected rows of codes, in a table like that of the first fit.

    `Schema.write` documents `conditions` and `index`.
    """
    network = fitted.network
    cells = map_codes(network.likelihood.mean, Z, conditions, fitted, network)
    return fitted.schema.write(cells, conditions, index)


def reconstructions(rows: Rows, fitted: Fitted, index: Any = None) -> Any:
    """Compute the reconstructions of rows, in a table like that of the first fit.

    Conditions are copied from the rows. `index` is that of the result.
    """
    return fitted.schema.write(reconstructed_cells(rows, fitted), rows.conditions, index)


def reconstructed_cells(rows: Rows, fitted: Fitted) -> Floats:
    """Compute the modelled cells (n, n_modelled) of the reconstructions of rows."""
    restored, likelihood = restoration(fitted), fitted.network.likelihood
    return map_rows(lambda batch: likelihood.mean(restored(batch)), rows, fitted)


def decode_for_rows(Z: Floats, rows: Rows, fitted: Fitted) -> tuple[Floats, Floats]:
    """Decode the codes `Z` (n, k), and compare the cells of rows with the results.

    Returns the expected cells (n, n_modelled), under the conditions of the rows, and the surprises
    (n, n_modelled) of the cells of the rows. The surprise of a category is the square root of twice
    the logarithm of the ratio of the probability of the most probable level to that of the row's.
    Its square is a difference of two deviances, as a squared residual of a number is. All other
    surprises are 0.
    """
    network, likelihood = fitted.network, fitted.network.likelihood
    offset, scale = code_units(fitted, network)
    is_category = torch.tensor([n > 0 for n in rows.modelled_levels]).to(network.like.device)
    k = Z.shape[1]

    def decode(block: Rows) -> Tensor:
        z, values = np.split(block.values, [k], axis=1)
        batch = make_batch(replace(rows, values=values), network)
        out = network.outputs(tensor(z, network) / scale + offset, batch)
        cells = likelihood.mean(out)
        if not len(is_category):
            return cells
        own = network.inputs.modelled(batch)
        excess = likelihood.deviance(own, out) - likelihood.deviance(own._replace(x=cells), out)
        surprise = torch.where(is_category, excess.clamp_min(0), 0.0).sqrt()
        return torch.cat([cells, surprise], -1)

    result = _map_blocks(decode, Rows(np.hstack([Z, rows.values])))
    result = _check_finite(result, Z.dtype, network, _farthest_cell(rows, fitted))
    if not len(is_category):
        return result, np.zeros_like(result)
    cells, surprises = np.split(result, 2, axis=1)
    return cells, surprises


def encoded_rows(rows: Rows, fitted: Fitted) -> Floats:
    """Return the modelled cells of rows as complete numbers, for other estimators.

    Complete numbers are returned as they are. Otherwise, they are the input of the encoder.
    """
    if not (rows.may_have_missing or any(rows.modelled_levels)):
        return rows.modelled
    return map_rows(fitted.network.inputs, rows, fitted)


def errors(rows: Rows, fitted: Fitted, per_feature: bool) -> Floats:
    """Compute the reconstruction errors (n,) of rows, in float64.

    If `per_feature` is True, it returns the errors (n, n_columns) of cells instead, with the
    columns of X. Those of conditions are 0, and those of missing cells are NaN.
    """
    network, restored = fitted.network, restoration(fitted)

    def error(batch: Batch) -> Tensor:
        rows = network.inputs.modelled(batch)
        cells = network.likelihood.deviance(rows, restored(batch))
        return cells if per_feature else cells.sum(-1)

    result = map_rows(error, rows, fitted, np.float64)
    if not per_feature:
        return result
    if rows.may_have_missing:
        result[np.isnan(rows.modelled)] = np.nan
    return fitted.schema.arrange(result)


def evaluate_density(method: str, rows: Rows, fitted: Fitted, *arguments: object) -> Floats:
    """Call a method of the fitted density, such as "log_prob", for rows, and return float64."""
    network, function = to_float64_device(fitted.network), getattr(fitted.density, method)
    block_rows = max(BLOCK_ROWS, min(DENSITY_ROWS, DENSITY_CELLS // rows.values.shape[1]))

    def evaluate(batch: Batch) -> Tensor:
        values: Tensor = function(network, batch, *arguments)
        return values

    return map_rows(evaluate, rows, fitted, np.float64, network, block_rows)


def predictive_draws(rows: Rows, n_draws: int, seed: int, fitted: Fitted) -> Any:
    """Draw `n_draws` rows for each row, given codes drawn from the posterior of the row.

    The result has shape (n_draws, n, n_columns), or it is a list of data frames if the first fit
    received one. Conditions are copied from the rows.
    """
    network, density = to_float64_device(fitted.network), cast(Importance, fitted.density)
    generator = torch.Generator(network.like.device)
    generator.manual_seed(derive_seed(seed, "posterior_predictive"))
    draws = Draws(generator, network.like.dtype)
    cells = map_rows(
        lambda batch: density.predict(network, batch, n_draws, draws), rows, fitted, None, network
    )
    tables = [fitted.schema.write(table, rows.conditions) for table in cells.swapaxes(0, 1)]
    return tables if fitted.schema.library else np.stack(tables)


def completed(rows: Rows, fitted: Fitted) -> Floats:
    """Fill the missing cells of rows with the expected ones, (n, n_modelled).

    They are expected given the most probable code of each row, given its observed cells.
    """
    network, likelihood = to_float64_device(fitted.network), fitted.density.likelihood

    def expected(batch: Batch) -> Tensor:
        z = fitted.density.mode(network, batch).to(batch.x)
        return likelihood.mean(network.outputs(z, batch))

    incomplete = rows.take(_incomplete(rows))
    if not len(incomplete):
        return rows.modelled.copy()
    return _filled(rows, map_rows(expected, incomplete, fitted, network=network))


def completed_draws(rows: Rows, n_draws: int, seed: int, fitted: Fitted) -> list[Floats]:
    """Fill the missing cells of rows with draws, `n_draws` times, each of shape (n, n_modelled).

    Codes are drawn from their posteriors given the observed cells, and cells from the likelihood.
    """
    network, density = to_float64_device(fitted.network), fitted.density
    generator = torch.Generator(network.like.device).manual_seed(derive_seed(seed, "impute"))
    draws = Draws(generator, network.like.dtype)

    def draw(batch: Batch) -> Tensor:
        z = density.draw_posterior(network, batch, n_draws, draws).to(batch.x)
        return density.likelihood.sample(network.outputs(z, batch), draws).transpose(0, 1)

    incomplete = rows.take(_incomplete(rows))
    if not len(incomplete):
        return [rows.modelled.copy() for _ in range(n_draws)]
    cells = map_rows(draw, incomplete, fitted, network=network)
    return [_filled(rows, cells[:, j]) for j in range(n_draws)]


def _incomplete(rows: Rows) -> NDArray[np.bool_]:
    """Return a mask of the rows with a missing modelled cell."""
    incomplete: NDArray[np.bool_] = np.asarray(np.isnan(rows.modelled).any(axis=1))
    return incomplete


def _filled(rows: Rows, values: Floats) -> Floats:
    """Fill missing cells with the `values` (n_incomplete, n_modelled) of incomplete rows."""
    cells, missing, index = rows.modelled.copy(), np.isnan(rows.modelled), _incomplete(rows)
    cells[index] = np.where(missing[index], values, cells[index])
    return cells


@one_thread
def draw_rows(
    n: int,
    mean: bool,
    seed: int,
    conditions: Floats | None,
    fitted: Fitted,
) -> Floats:
    """Draw rows from the model, with the columns of X.

    Parameters
    ----------
    n : int
        Number of rows.
    mean : bool
        Whether to return the expected rows of the drawn codes instead of draws from the likelihood.
    seed : int
        Seed of the random numbers.
    conditions : ndarray of shape (n, n_conditions) or None
        Conditions of the rows. If it is None and the model has conditions, they are drawn from the
        conditions of the training rows.
    fitted : Fitted
        Fitted model.

    Returns
    -------
    X : ndarray of shape (n, n_columns)
        Drawn rows in the user's units, including the columns of conditions.

    Raises
    ------
    ValueError
        If the codes do not fit into memory, or if the rows are not finite.
    """
    network, density = to_float64_device(fitted.network), fitted.density
    generator = torch.Generator(network.like.device).manual_seed(derive_seed(seed, "sample"))
    draws = Draws(generator, network.like.dtype)
    components = fitted.components
    try:
        Z = density.draw_codes(network, n, draws).cpu().numpy()
        Z = (Z - components.offset) * components.scale
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"n_samples={n} rows do not fit into memory.") from error
    if conditions is None and fitted.conditions is not None:
        uniform = draws.uniform((n, 1 + fitted.conditions.n_numeric)).cpu().numpy()
        conditions = fitted.conditions.draw(fitted.schema.n_levels, uniform)

    def draw(out: Tensor) -> Tensor:
        return density.likelihood.mean(out) if mean else density.likelihood.sample(out, draws)

    cells = map_codes(draw, Z, conditions, fitted, network, "the drawn codes")
    return fitted.schema.write(cells, conditions)


@one_thread
def _map_blocks(
    function: Callable[[Rows], Tensor], rows: Rows, block_rows: int = BLOCK_ROWS
) -> Floats:
    """Apply a function to blocks of rows and concatenate the results."""
    with torch.inference_mode(False), torch.no_grad():
        blocks = [function(block).cpu().numpy() for block in rows.blocks(block_rows)]
    return np.concatenate(blocks)


def _check_finite(
    result: Floats,
    dtype: Any,
    network: Network,
    describe: Callable[[int], str],
) -> Floats:
    """Convert a result to a dtype and check that it is finite.

    Parameters
    ----------
    result : ndarray of shape (n, ...)
        One result for each row.
    dtype : dtype
        dtype of the result.
    network : Network
        Network that computed the result.
    describe : callable
        Function that returns a description of the cell of row `i` that is farthest from the
        training rows.

    Returns
    -------
    result : ndarray of shape (n, ...)
        The converted result.

    Raises
    ------
    ValueError
        If the result of a row is not finite. The error describes the first such row.
    """
    with np.errstate(over="ignore"):
        converted = result.astype(dtype, copy=False)
    if np.isfinite(converted).all():
        return converted
    row = int(np.argmin(np.isfinite(converted.reshape(len(result), -1)).all(axis=1)))
    advice = or_float64(network.like.dtype).replace("set", "fit with")
    if np.isfinite(result[row]).all():
        advice = " or convert the table to float64"
    raise ValueError(
        f"{describe(row)}, which is too far from the training rows to compute with. Remove or clip "
        f"this value{advice}."
    )
