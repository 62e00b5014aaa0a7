"""Names that programs written for onnxruntime import from its ``capi`` package."""
