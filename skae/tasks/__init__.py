"""Tasks: estimators over any autoencoder, through its public methods."""
