"""nnlite beside PyTorch, Keras and ONNX Runtime, in one run: `python -m benchmarks.peers`. ../README.md says how."""
