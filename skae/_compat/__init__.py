"""Private functions and classes of scikit-learn and torch that skae uses, with the reasons."""
