"""Inspection of fitted estimators through their public methods."""
