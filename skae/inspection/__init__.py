"""Displays that plot the results of estimators with matplotlib."""
