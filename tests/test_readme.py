"""The examples of README.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

README = Path(__file__).resolve().parent.parent / "README.md"


def test_examples_run_one_after_another(capsys):
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(compile(example, str(README), "exec"), names)
    np.testing.assert_allclose(names["y"].sum(axis=1), 1, rtol=1e-5)
    assert "def kernel(" in capsys.readouterr().out
