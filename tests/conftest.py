"""What holds for every test."""

from __future__ import annotations

import contrib_nodes
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _the_same_numbers_whatever_ran_before() -> None:
    """Tests that draw from the shared generator get the same numbers in any order and any selection."""
    contrib_nodes.rng.bit_generator.state = np.random.default_rng(0).bit_generator.state
