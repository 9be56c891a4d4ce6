"""Private names of scikit-learn and torch that skae uses, each with the reason; nothing else."""
