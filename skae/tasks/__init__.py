"""Meta-estimators for outlier detection, classification and regression with any autoencoder."""
