"""The classes that programs written for onnxruntime catch from this module."""

from ..errors import *  # noqa: F403
from ..errors import __all__ as __all__
