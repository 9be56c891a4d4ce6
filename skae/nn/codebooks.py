"""Codebooks: vectors that quantize raw outputs and are updated by exponential moving averages."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skae.nn.draws import Draws

DECAY = 0.95
"""Weight of the previous running average in an update."""

DEAD = 0.1
"""A vector whose average share of rows is below this multiple of 1 / n_codes is replaced by a part
of the raw outputs of a random row."""


class Codebooks(nn.Module):
    """Several codebooks, each of which quantizes one of equally long parts of the raw outputs `h`.

    The vectors of the codebooks are trained by exponential moving averages, not by gradients. They
    are parameters rather than buffers because they change from step to step.

    Parameters
    ----------
    n_components : int
        Length of the raw outputs of a row, a multiple of `n_codebooks`.
    n_codebooks, n_codes : int
        Number of codebooks, and number of vectors in each of them.
    """

    def __init__(self, n_components: int, n_codebooks: int, n_codes: int) -> None:
        super().__init__()
        shape = n_codebooks, n_codes
        vectors = torch.zeros(*shape, n_components // n_codebooks)
        self.vectors = nn.Parameter(vectors, requires_grad=False)
        self.usage = nn.Parameter(torch.zeros(shape), requires_grad=False)

    def nearest(self, h: Tensor) -> Tensor:
        """Return the index of the nearest vector in each codebook, (n, n_codebooks)."""
        closeness = self._parts(h) @ self.vectors.mT - 0.5 * self.vectors.square().sum(-1)[:, None]
        return closeness.argmax(-1).mT

    def look_up(self, indices: Tensor) -> Tensor:
        """Return the vectors (n, n_components) at indices (n, n_codebooks)."""
        return self.vectors[torch.arange(len(self.vectors)), indices].flatten(-2)

    @torch.no_grad()
    def follow(self, h: Tensor, weight: Tensor, draws: Draws, decay: float = DECAY) -> None:
        """Update the vectors with the raw outputs (n, n_components) of rows with weights (n,).

        Rarely used vectors are replaced first. With a decay of 0, the update is an iteration of
        k-means.
        """
        parts, n_codes = self._parts(h), self.vectors.shape[1]
        share = weight / weight.sum()
        self._revive(parts, share, draws)
        chosen = F.one_hot(self.nearest(h).mT, n_codes).to(h) * share[:, None]
        now = chosen.sum(1)
        self.usage.lerp_(now, 1 - decay)
        toward = chosen.mT @ parts - now[..., None] * self.vectors
        self.vectors.addcdiv_(toward, self.usage[..., None].clamp_min(1e-12), value=1 - decay)

    def _revive(self, parts: Tensor, share: Tensor, draws: Draws) -> None:
        """Replace rarely used vectors by parts of the raw outputs of rows drawn at random."""
        n_codes = self.vectors.shape[1]
        uniform = draws.uniform(self.usage.shape) * share.sum()
        rows = torch.searchsorted(share.cumsum(0), uniform).clamp_max(len(share) - 1)
        drawn = parts.gather(1, rows[..., None].expand_as(self.vectors))
        dead = self.usage < DEAD / n_codes
        self.vectors.copy_(torch.where(dead[..., None], drawn, self.vectors))
        self.usage.copy_(torch.where(dead, 1 / n_codes, self.usage))

    def _parts(self, h: Tensor) -> Tensor:
        """Split raw outputs into the parts for the codebooks, (n_codebooks, n, width)."""
        return h.unflatten(-1, (len(self.vectors), -1)).transpose(0, 1)
