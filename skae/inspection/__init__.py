"""Displays that plot results of fitted estimators through their public methods."""
