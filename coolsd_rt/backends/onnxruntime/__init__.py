"""The backend ONNX Runtime, on a CPU or with its CUDA provider."""
