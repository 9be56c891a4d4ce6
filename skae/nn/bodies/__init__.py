"""Bodies: encoders and decoders of each architecture."""
