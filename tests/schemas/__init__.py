"""Cases of single operators, drawn from the schemas of onnx and the kernels of onnxruntime: ``python -m tests.schemas``.

`catalogue` lists what can be compared, `draw` makes awkward shapes and values, the rules of each family (`elementwise`,
`reductions` ...) turn draws into valid nodes, `compare` runs both runtimes, `explained` says where they rightly differ.
"""
