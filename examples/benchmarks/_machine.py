"""One line about the machine that a benchmark ran on."""

import os
import platform

import sklearn
import torch


def describe_machine():
    """Processor, cores and versions."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    )
