"""A description of the machine that a benchmark runs on."""

import os
import platform

import sklearn
import torch


def describe_machine():
    """Return the processor, its number of cores, and versions of packages."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    )
