"""The examples do what they say: the same tokens as onnxruntime's, with the cache and without."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest

from benchmarks import zoo
from examples.generate import Decoder, generate, greedy, sampled

SMALL = {
    "gpt2": {"layers": 2, "width": 64, "heads": 4, "vocabulary": 97, "context": 64},
    "llama": {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "inner": 96, "vocabulary": 97},
}


@pytest.fixture(scope="module", params=SMALL)
def model(request) -> bytes:
    return zoo.build(request.param, **SMALL[request.param]).SerializeToString()


class Theirs:
    """The same with onnxruntime, which is fed the past anew for each token."""

    def __init__(self, model: bytes) -> None:
        self.session, self.length = onnxruntime.InferenceSession(model), 0
        inputs = {x.name: x.shape for x in self.session.get_inputs()}
        self.names, pasts = list(inputs), [name for name in inputs if name.startswith("past")]
        self.past = {name: np.zeros((1, inputs[name][1], 0, inputs[name][3]), np.float32) for name in pasts}

    def step(self, tokens: list[int]) -> np.ndarray:
        total = self.length + len(tokens)
        feeds = {"input_ids": np.array([tokens]), "attention_mask": np.ones((1, total), np.int64)}
        feeds["position_ids"] = np.arange(self.length, total)[None]
        presents = [name.replace("past_key_values", "present") for name in self.past]
        feeds = {name: x for name, x in feeds.items() if name in self.names}
        logits, *caches = self.session.run(["logits", *presents], {**feeds, **self.past})
        self.past, self.length = dict(zip(self.past, caches, strict=True)), total
        return logits[0, -1]


@pytest.mark.parametrize("pick", [lambda: greedy, lambda: sampled(0.8, top=20, seed=3)], ids=["greedy", "sampled"])
def test_tokens_are_those_of_onnxruntime(model, pick):
    ours, theirs = (
        list(itertools.islice(generate(decoder, [5, 3, 8], pick()), 9)) for decoder in (Decoder(model, capacity=4), Theirs(model))
    )
    assert ours == theirs
    assert len(ours) == 9


def test_a_cache_changes_no_token(model):
    decoder, tokens = Decoder(model), [7, 1, 2]
    for token in itertools.islice(generate(decoder, tokens), 5):
        np.testing.assert_equal(token, greedy(Decoder(model).step(tokens)))
        tokens.append(token)
    assert decoder.length == 7


def test_generation_ends_with_the_token_that_ends(model):
    tokens = list(itertools.islice(generate(Decoder(model), [5]), 4))
    assert list(generate(Decoder(model), [5], end=tokens[0])) == []
    assert all(token != 96 for token in itertools.islice(generate(Decoder(model), [5], sampled(5.0, seed=1), end=96), 10))
