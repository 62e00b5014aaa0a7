"""Text from a decoder with a KV cache that grows in place: a loop over a session's runs, greedy or sampled.

`python -m examples.generate --model decoder.onnx 15496 11 995` goes on from token numbers. The model has the names that
exporters of Hugging Face models write: input_ids, attention_mask, position_ids (if at all), past_key_values.N.key and
.value; logits, present.N.key and .value. Without a model: GPT-2's layers with random weights, so the time is right and the
text is not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence

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
    """A session and the keys and values of all tokens so far, which stay where they are between runs.

    Args:
        model: path or bytes.
        options: of the session.
        capacity: tokens that there is room for at first; it doubles as often as it has to.
    """

    def __init__(self, model: str | bytes, options: jitrt.SessionOptions | None = None, capacity: int = 256) -> None:
        self.session = jitrt.InferenceSession(model, options)
        self.binding = self.session.io_binding()
        self.binding.bind_output("logits")
        inputs = {x.name: x.shape for x in self.session.get_inputs()}
        self.takes_positions = "position_ids" in inputs
        self.length, self.caches = 0, []
        for name, (_, heads, _, size) in ((n, shape) for n, shape in inputs.items() if n.startswith("past_key_values.")):
            nothing = np.zeros((1, heads, 0, size), np.float32)
            self.caches.append(self.binding.bind_cache(name, name.replace("past_key_values", "present"), nothing, capacity))

    def step(self, tokens: Sequence[int]) -> np.ndarray:
        """Take tokens, all of a prompt or one; the logits of what comes next."""
        total = self.length + len(tokens)
        for cache in self.caches:
            if total > cache.capacity:
                cache.reserve(max(total, 2 * cache.capacity))
        self.binding.bind_cpu_input("input_ids", np.array([tokens], np.int64))
        self.binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        if self.takes_positions:
            self.binding.bind_cpu_input("position_ids", np.arange(self.length, total)[None])
        self.session.run_with_iobinding(self.binding)
        self.length = total
        return self.binding.get_outputs()[0].numpy()[0, -1]


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
    tokens = generate(Decoder(arguments.model or _random_gpt2(), options), arguments.tokens, pick)
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
