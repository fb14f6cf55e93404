"""From a trained model to what engines run: export to ONNX, and the proof that it is still the same model."""
