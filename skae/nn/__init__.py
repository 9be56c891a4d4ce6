"""The mathematics in plain torch: nothing here knows scikit-learn or skorch."""
