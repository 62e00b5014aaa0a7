"""A picture with text in it: several lines, two sizes, one line rotated a little."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIZE = (820, 430)
_INK = (25, 25, 35)
_RED = (150, 25, 25)


@dataclass(frozen=True)
class Line:
    """A line of text: left and top edge in pixels, size in pixels, degrees counter-clockwise."""

    text: str
    left: int
    top: int
    size: int
    angle: float = 0.0
    colour: tuple[int, int, int] = _INK


LINES = (
    Line("Reading text with numba", 40, 26, 46),
    Line("The quick brown fox jumps over the lazy dog.", 40, 112, 28),
    Line("Invoice 2024-117: total 1,358.40 EUR", 40, 164, 28),
    Line("Every kernel can be printed and replaced", 40, 216, 28),
    Line("This line is rotated by 4 degrees", 40, 270, 36, angle=4.0, colour=_RED),
)


def draw(lines: tuple[Line, ...] = LINES) -> Image.Image:
    """Draw the lines, in the font that Pillow carries, on a light background."""
    picture = Image.new("RGB", SIZE, (250, 249, 245))
    for line in lines:
        layer = _written(line)
        picture.paste(layer, (line.left, line.top), layer)
    return picture


def _written(line: Line) -> Image.Image:
    """A transparent layer just large enough for the line, rotated."""
    font = ImageFont.load_default(size=line.size)
    _, _, right, bottom = font.getbbox(line.text)
    layer = Image.new("RGBA", (int(right) + 2, int(bottom) + 2), (*line.colour, 0))
    ImageDraw.Draw(layer).text((0, 0), line.text, font=font, fill=(*line.colour, 255))
    return layer.rotate(line.angle, resample=Image.Resampling.BICUBIC, expand=True) if line.angle else layer
