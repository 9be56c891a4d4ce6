"""Initialization of a network from a trained one with fewer components."""

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.network import Network
from skae.nn.pca import column_moments, principal_axes, slopes


@torch.no_grad()
def grow(network: Network, old: Network, batch: Batch, generator: torch.Generator) -> None:
    """Initialize a network from a trained one with fewer components.

    The weights of the first components are copied. With a linear skip, the other components are
    initialized with the principal axes of the residuals of the old network. The decoder gets the
    coefficients of a linear regression of the residuals on the new components of the code.

    Parameters
    ----------
    network : Network
        Network to initialize.
    old : Network
        Trained network that differs from `network` only in its smaller number of components.
    batch : Batch
        Sample of the training rows.
    generator : torch.Generator
        Source of random numbers.
    """
    network.inputs.load_state_dict(old.inputs.state_dict())
    network.likelihood.load_state_dict(old.likelihood.state_dict())
    network.likelihood.fix_noise()
    raw = _leading(network.latent.blocks(), old.latent.blocks())
    code = _leading(_decoded(network), _decoded(old))
    tied = {p.data_ptr() for p in network.encoder.parameters()}
    for body, shorter, axis, index in (
        (network.encoder, old.encoder, 0, raw),
        (network.decoder, old.decoder, -1, code),
    ):
        known = shorter.state_dict()
        for name, weights in body.state_dict().items():
            if body is network.encoder or weights.data_ptr() not in tied:
                _copy_weights(weights, known[name], axis, index)
    if network.encoder.skip is not None:
        _start_new_components(network, old, batch, generator)


def _decoded(network: Network) -> list[int]:
    """Return the lengths of the parts of the decoder's input, each of which may grow at its end."""
    k = network.latent.n_components
    return [k, network.latent.n_outputs - k, network.inputs.n_conditions]


def _leading(blocks: list[int], shorter: list[int]) -> Tensor:
    """Return the indices of the leading entries of blocks, as many as the `shorter` blocks have."""
    places = torch.arange(sum(blocks)).split(blocks)
    return torch.cat([place[:n] for place, n in zip(places, shorter, strict=True)])


def _copy_weights(p: Tensor, known: Tensor, axis: int, index: Tensor) -> None:
    """Copy weights. If their shapes differ, they are copied to an index of `p` along an axis."""
    if p.shape == known.shape:
        p.copy_(known)
    else:
        p.index_copy_(axis, index.to(p.device), known.to(p))


def _start_new_components(
    network: Network, old: Network, batch: Batch, generator: torch.Generator
) -> None:
    """Initialize the linear skips of the new components with principal axes of the residuals."""
    down, up = network.encoder.skip, network.decoder.skip
    assert down is not None
    assert up is not None
    k, k_old = network.latent.n_components, old.latent.n_components
    inputs, weight, rows = network.inputs, batch.weight, network.inputs.modelled(batch)
    x, d = inputs.encoding(rows.x), inputs.n_encoded
    errors = (x - old.likelihood.expected(old.restored(batch))) / inputs.unit
    observed = None if rows.observed is None else inputs.encoding.spread(rows.observed)
    residuals = (errors if observed is None else torch.where(observed, errors, 0.0)).double()
    moments = column_moments(residuals, weight)
    axes = principal_axes(residuals, weight, moments, k - k_old, generator)[1].to(x)
    codes = inputs(batch)[:, :d].nan_to_num() @ axes
    code_moments = column_moments(codes, weight)
    gain = network.latent.start(code_moments.variance.clamp_min(1e-12), 0.0).down
    places = slice(k_old, k_old + axes.shape[1])
    down.weight[k_old:k] = 0
    down.bias[k_old:k] = 0
    down.weight[places, :d] = (gain[:, None] * axes.double().mT).to(down.weight)
    if up.transposed:
        return
    one = torch.ones_like(gain)
    effect = slopes(residuals, moments, codes, code_moments.center, one, weight)
    effect = effect / (inputs.scale / inputs.unit)[..., None]
    variance = moments.variance.to(x) * (inputs.unit**2)
    slope = network.likelihood.start(inputs.center, variance, inputs.scale)[1]
    up.weight[:, places] = (effect / gain * slope.double()[:, None]).to(up.weight)
