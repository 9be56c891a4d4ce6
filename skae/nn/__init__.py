"""The mathematics in plain torch, without scikit-learn or skorch."""
