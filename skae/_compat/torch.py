"""Private names of torch, and what differs between its releases."""

import warnings
from contextlib import suppress

# `torch.func.jvp` imports this module at the first derivative, and the module warns of its own use
# of `torch.jit.script`. Importing it here, once, keeps that warning from the user.
with warnings.catch_warnings(), suppress(ImportError):
    warnings.simplefilter("ignore")
    import torch._decomp.decompositions_for_jvp  # noqa: F401
