"""Text from a decoder with a KV cache: a loop over `InferenceSession.run`, greedy or sampled.

`python -m examples.generate --model decoder.onnx 15496 11 995` goes on from token numbers. The model has the names that
exporters of Hugging Face models write: input_ids, attention_mask, position_ids (if at all), past_key_values.N.key and
.value; logits, present.N.key and .value. Without a model: GPT-2's layers with random weights, so the time is right and the
text is not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import numpy as np

import jitrt

Pick = Callable[[np.ndarray], int]


def greedy(logits: np.ndarray) -> int:
    """The most likely token."""
    return int(logits.argmax())


def sampled(temperature: float = 1.0, top: int = 50, seed: int | None = None) -> Pick:
    """One of the `top` most likely tokens, by the probabilities at a temperature."""
    rng = np.random.default_rng(seed)

    def pick(logits: np.ndarray) -> int:
        best = np.argsort(logits)[-top:]
        weights = np.exp((logits[best] - logits[best[-1]]).astype(np.float64) / temperature)
        return int(rng.choice(best, p=weights / weights.sum()))

    return pick


class Decoder:
    """A session and the keys and values of all tokens so far.

    Args:
        model: path or bytes.
        runtime: jitrt, or onnxruntime to compare with.
        options: of the session.
    """

    def __init__(self, model: str | bytes, runtime: ModuleType = jitrt, options: object = None) -> None:
        self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        inputs = {x.name: x for x in self.session.get_inputs()}
        self.takes_positions = "position_ids" in inputs
        names = [name for name in inputs if name.startswith("past_key_values.")]
        self.present = {name: name.replace("past_key_values", "present") for name in names}
        # nothing is past at first: a size of 0 where the batch is 1 and heads and their width are numbers
        self.past = {name: np.zeros([_size(d, i) for i, d in enumerate(inputs[name].shape)], np.float32) for name in names}
        self.length = 0

    def step(self, tokens: Sequence[int]) -> np.ndarray:
        """Take tokens, all of a prompt or one; the logits of what comes next."""
        total = self.length + len(tokens)
        feeds = {"input_ids": np.array([tokens], np.int64), "attention_mask": np.ones((1, total), np.int64), **self.past}
        if self.takes_positions:
            feeds["position_ids"] = np.arange(self.length, total)[None]
        logits, *caches = self.session.run(["logits", *self.present.values()], feeds)
        self.past, self.length = dict(zip(self.present, caches, strict=True)), total
        return logits[0, -1]


def _size(dimension: str | int, place: int) -> int:
    return dimension if isinstance(dimension, int) else 1 if place == 0 else 0


def generate(decoder: Decoder, prompt: Sequence[int], pick: Pick = greedy, end: int | None = None) -> Iterator[int]:
    """Tokens that go on from a prompt, one after the other, until `end` comes."""
    token = pick(decoder.step(prompt))
    while token != end:
        yield token
        token = pick(decoder.step([token]))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m examples.generate", description="Go on from token numbers.")
    parser.add_argument("tokens", type=int, nargs="*", default=[464, 3290, 318])
    parser.add_argument("--model", help="default: GPT-2 with random weights")
    parser.add_argument("--count", type=int, default=32, help="tokens to generate")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy")
    parser.add_argument("--bfloat16", action="store_true", help="hold weights in half the memory")
    arguments = parser.parse_args()
    options = jitrt.SessionOptions()
    if arguments.bfloat16:
        options.add_session_config_entry("jitrt.weights", "bfloat16")
    pick = sampled(arguments.temperature) if arguments.temperature else greedy
    tokens = generate(Decoder(arguments.model or _random_gpt2(), options=options), arguments.tokens, pick)
    times = []
    for _ in range(arguments.count):
        start = time.perf_counter()
        print(next(tokens), end=" ", flush=True)
        times.append(time.perf_counter() - start)
    later = sorted(times[2:] or times)
    print(f"\nfirst token {times[0]:.2f} s, later {1 / later[len(later) // 2]:.1f} tokens a second (median)")


def _random_gpt2() -> bytes:
    from benchmarks import zoo

    return zoo.build("gpt2").SerializeToString()


if __name__ == "__main__":
    main()
