"""Networks of other libraries and files: scikit-learn, torch, ONNX, safetensors."""
