"""The command that measures kernels beside a loop of multiply-adds (`benchmarks/rates.py`), without its timings."""

from __future__ import annotations

import numpy as np

from benchmarks import rates
from benchmarks.kernel_driver import Memory
from benchmarks.layers import Layer


def test_a_layer_a_product_and_attention_are_made_to_run_with_the_operations_of_their_definitions() -> None:
    memory = Memory()
    for (replay, flops), expected in (
        (rates.convolution(Layer(3, 5, 7, 3, 2), memory), 2 * 4 * 4 * 5 * 3 * 9),
        (rates.product(17, 40, 70, memory), 2 * 17 * 40 * 70),
        (rates.attentions(17, memory), 4 * rates.HEADS * 17 * 17 * rates.HEAD),
    ):
        replay.run()
        assert flops == expected


class Witness(Memory):
    """Tells which array was kept last."""

    def keep(self, array: np.ndarray) -> int:
        self.last = array
        return super().keep(array)


def test_the_loop_multiplies_and_adds_as_often_as_it_says() -> None:
    memory = Witness()
    replay, flops = rates.multiply_adds(memory)
    data = memory.last
    data[...] = 1
    replay.run()
    # each sum starts with 1 and gets 1 a turn
    np.testing.assert_array_equal(data, rates.CHAINS * (rates.ROUNDS + 1))
    assert flops == 2 * data.size * rates.CHAINS * rates.ROUNDS
