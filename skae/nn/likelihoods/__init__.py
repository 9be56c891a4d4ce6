"""Likelihoods: what a decoder's output says about a row."""
