"""What image classifiers share: their input, their output, and gates over channels.

Inputs are float32[batch, 3, image, image], normalised; `image=None` leaves height and width symbolic. Outputs are
float32[batch, classes] logits if not said otherwise.
"""

import numpy as np

from .builder import GraphBuilder, Value
from .samplers import photo

BRANCH_GAIN = 0.5  # of a residual branch's last normalisation: branches refine the sum, they do not dominate it


def image_input(g: GraphBuilder, image: int | None) -> Value:
    """The input `pixels`; its height and width are symbolic if `image` is None."""
    size = ("height", "width") if image is None else (image, image)
    return g.input("pixels", np.float32, ("batch", 3, *size), photo, channels=3)


def finish(g: GraphBuilder, logits: Value) -> None:
    """Declares the only output."""
    g.output("logits", logits, ("batch", logits.channels))


def squeeze_excite(g: GraphBuilder, x: Value, squeezed: int, act: str, gate: str = "Sigmoid") -> Value:
    """Gates channels by their own averages (Hu et al. 2018); `gate` is Sigmoid or HardSigmoid."""
    average = g.op("GlobalAveragePool", x)
    scores = g.conv(g.act(g.conv(average, squeezed, 1), act), x.channels, 1)
    share = g.op("Sigmoid", scores) if gate == "Sigmoid" else g.op(gate, scores, alpha=1 / 6)
    return g.op("Mul", x, share, power=0.3 * x.power)  # E[sigmoid(z)^2] is 0.29, of its piecewise linear form 0.28
