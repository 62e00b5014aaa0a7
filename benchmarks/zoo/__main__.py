"""Command line: `python -m benchmarks.zoo resnet50 -o resnet50.onnx`."""

import argparse
from pathlib import Path

from . import NAMES, build


def main() -> None:
    """Writes one model to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description="Write a model of the zoo to a file.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("-o", "--output", type=Path, help="default: NAME.onnx")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    options = parser.parse_args()
    path = options.output or Path(f"{options.name}.onnx")
    path.write_bytes(build(options.name, seed=options.seed).SerializeToString())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
