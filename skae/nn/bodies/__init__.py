"""Encoders and decoders of each architecture."""
