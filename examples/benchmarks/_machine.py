"""Description of the machine on which a benchmark runs."""

import os
import platform

import sklearn
import torch


def describe_machine():
    """Return the architecture, the number of cores, and the versions of Python and packages."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    )
