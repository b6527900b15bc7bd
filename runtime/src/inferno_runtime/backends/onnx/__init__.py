"""ONNX models on onnxruntime.

`pieces` and `vocabulary` are for the server's process too and import neither numpy nor onnxruntime.
"""
