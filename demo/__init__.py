"""The demonstration: real programs and real models on jitrt, beside onnxruntime. Run it with `make demo`."""
