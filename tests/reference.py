"""Which onnxruntime there is to compare with.

Python 3.10 has none newer than 1.23, whose operators of com.microsoft crash on inputs that later ones take.
"""

from __future__ import annotations

import onnxruntime
import pytest

IS_NEW = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 24)
TOO_OLD = "onnxruntime is too old to compare with"
needs_new_onnxruntime = pytest.mark.skipif(not IS_NEW, reason=TOO_OLD)
