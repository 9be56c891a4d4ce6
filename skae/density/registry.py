"""Densities by the names that latents call them."""

from skae.density.density import Density
from skae.density.enumeration import Enumeration
from skae.density.importance import Importance
from skae.density.laplace import Laplace

DENSITIES: dict[str, type[Density]] = {
    "laplace": Laplace,
    "importance": Importance,
    "enumeration": Enumeration,
}
