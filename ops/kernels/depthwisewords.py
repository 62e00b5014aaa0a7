"""The words of the depthwise kernel's argument block (`depthwise`), in their order."""

from __future__ import annotations

# addresses, and the numbers and the kernel that the tail is made of
X, Y, FILTERS, BIAS, RESIDUAL, LOW, HIGH, EPILOGUE, EPILOGUE_BLOCK = range(9)
# bytes from one image, plane, row and pixel to the next: of the input, the output, the residual
X_IMAGE, X_PLANE, X_ROW, X_PIXEL, Y_IMAGE, Y_PLANE, Y_ROW, Y_PIXEL, R_IMAGE, R_PLANE, R_ROW, R_PIXEL = range(9, 21)
# sizes of the image and of the output
CHANNELS, PLANES, ROWS, PIXELS, OUT_PLANES, OUT_ROWS, OUT_PIXELS = range(21, 28)
# the window's taps, how far it moves, how far its taps are apart, and what lies before the image, by plane, row and pixel
TAP_PLANES, TAP_ROWS, TAP_PIXELS, STEP_PLANE, STEP_ROW, STEP_PIXEL = range(28, 34)
APART_PLANE, APART_ROW, APART_PIXEL, BEFORE_PLANES, BEFORE_ROWS, BEFORE_PIXELS = range(34, 40)
# blocks of output rows, channels of a task and chunks of them, output columns of a strip
ROW_BLOCKS, CHUNK, CHUNKS, STRIP = range(40, 44)
# rows and pixels of the unrolled tile (0: none), its kernel and argument block
TILE_ROWS, TILE_PIXELS, TILE_KERNEL, TILE_BLOCK = range(44, 48)
WORDS = 48
