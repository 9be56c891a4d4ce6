"""What the contract tests of likelihoods, latents, priors and bodies share.

A contract is a table of checks, each a function of one part of a model. A check must pass for every
part of its family, and it must fail for a part that is wrong in the way that the check looks for.
"""

import inspect

import pytest
import torch

import skae  # noqa: F401, imports every part
from skae.nn.draws import Draws


def draws(seed=0):
    return Draws(torch.Generator().manual_seed(seed), torch.float64)


def normal(*shape, seed=0):
    return draws(seed).normal(shape)


def concrete_classes(base):
    """The package's classes of a family that are not abstract."""
    below = {c for child in base.__subclasses__() for c in concrete_classes(child)}
    own = base.__module__.startswith("skae.") and not inspect.isabstract(base)
    return below | {base} if own else below


def named_checks(namespace):
    """The functions of a module whose names start with "check_", by the rest of their names."""
    prefix = "check_"
    names = [name for name in namespace if name.startswith(prefix)]
    return {name.removeprefix(prefix): namespace[name] for name in names}


def altered_class(kind, methods):
    """A class with other methods in place of its own ones."""
    assert all(hasattr(kind, name) for name in methods), "there are no such methods"
    return type("Wrong", (kind,), methods)


def assert_passes(check, part):
    """Assert what a check asserts, without drawing from torch's global generator."""
    before = torch.get_rng_state()
    check(part)
    assert torch.equal(torch.get_rng_state(), before)


def assert_fails(check, part):
    with pytest.raises(AssertionError):
        check(part)
