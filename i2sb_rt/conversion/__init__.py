"""Checkpoints of other programs as model files: the one part of the product that opens pickles."""
