"""jitrt beside onnxruntime, OpenVINO and MNN, each in a process of its own, measured in turns in one sitting.

`child.py` runs one model in one runtime and needs only numpy and that runtime; `driver.py` starts such processes and
lets them take turns; `models.py` says which models, and what has been promised of them; `__main__.py` is the command.
"""
