"""Score of a model on data, and recovery of what a cut loses, on ONNX Runtime."""
