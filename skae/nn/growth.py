"""A code gets more components: a network goes on from one whose codes are shorter."""

import torch
from torch import Tensor

from skae.nn.batch import Batch
from skae.nn.network import Network
from skae.nn.pca import column_moments, principal_axes, slopes


@torch.no_grad()
def grow(network: Network, old: Network, batch: Batch, generator: torch.Generator) -> None:
    """Let a network at its start go on from one with fewer components.

    The first components are the old ones, which encoder and decoder treat as they did. The others
    start on the principal axes of what the old network leaves of rows, as far as a linear map can
    see that.

    Parameters
    ----------
    network, old : Network
        They differ in the size of the code only.
    batch : Batch
        Rows that stand for all.
    generator : torch.Generator
    """
    network.inputs.load_state_dict(old.inputs.state_dict())
    network.likelihood.load_state_dict(old.likelihood.state_dict())
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
                _continue(weights, known[name], axis, index)
    if network.encoder.skip is not None:
        _see_what_is_left(network, old, batch, generator)


def _decoded(network: Network) -> list[int]:
    """Lengths of the parts of what the decoder sees."""
    k = network.latent.n_components
    return [k, network.latent.n_outputs - k, network.inputs.n_conditions]


def _leading(blocks: list[int], shorter: list[int]) -> Tensor:
    """Where in a row of blocks those of a shorter row are: at the head of each."""
    places = torch.arange(sum(blocks)).split(blocks)
    return torch.cat([place[:n] for place, n in zip(places, shorter, strict=True)])


def _continue(p: Tensor, known: Tensor, axis: int, index: Tensor) -> None:
    """Take over weights, those that know the size of the code at an index along an axis."""
    if p.shape == known.shape:
        p.copy_(known)
    else:
        p.index_copy_(axis, index.to(p.device), known.to(p))


def _see_what_is_left(
    network: Network, old: Network, batch: Batch, generator: torch.Generator
) -> None:
    """Start new components on the principal axes of what is left, as codes of rows tell it."""
    down, up = network.encoder.skip, network.decoder.skip
    assert down is not None
    assert up is not None
    k, k_old = network.latent.n_components, old.latent.n_components
    inputs, weight, x = network.inputs, batch.weight, network.inputs.modelled(batch).x
    left = (x - old.likelihood.mean(old.restored(batch))).double().nan_to_num()
    moments = column_moments(left, weight)
    axes = principal_axes(left, weight, moments, k - k_old, generator)[1].to(x)
    codes = inputs(batch).nan_to_num() @ axes
    of_codes = column_moments(codes, weight)
    gain = network.latent.start(of_codes.variance.clamp_min(1e-12), 0.0).down
    places = slice(k_old, k_old + axes.shape[1])
    down.weight[k_old:k] = 0
    down.bias[k_old:k] = 0
    down.weight[places] = (gain[:, None] * axes.double().mT).to(down.weight)
    if up.transposed:
        return
    one = torch.ones_like(gain)
    effect = slopes(left, moments, codes, of_codes.center, one, weight) / inputs.scale
    slope = network.likelihood.start(inputs.center, moments.variance.to(x), inputs.scale)[1]
    up.weight[:, places] = (effect / gain * slope.double()[:, None]).to(up.weight)
