"""What launches, kernel and tile of convolution agree on: the words of the argument block in their order, and pieces of K."""

from __future__ import annotations

# addresses, and the numbers and the kernel that the tail is made of
X, Y, FILTERS, BIAS, RESIDUAL, LOW, HIGH, EPILOGUE, EPILOGUE_BLOCK = range(9)
# bytes from one image, plane, row and pixel to the next: of the input as output pixels see it, the output, the residual
X_IMAGE, X_PLANE, X_ROW, X_PIXEL, Y_IMAGE, Y_PLANE, Y_ROW, Y_PIXEL, R_IMAGE, R_PLANE, R_ROW, R_PIXEL = range(9, 21)
# the output's size; bytes from one tap of the filter to the next
PLANES, ROWS, TAP_PLANE, TAP_ROW, TAP_PIXEL, PIXELS = range(21, 27)
# K: segments that are consecutive in memory, by plane, row and pixel, and elements of each
SEGMENT_PLANES, SEGMENT_ROWS, SEGMENT_PIXELS, SEGMENT_LENGTH = range(27, 31)
# how a row is cut into tiles (`split_row`), and K into blocks
FIRST, COUNT, SECOND, PER_ROW, BLOCK_SEGMENTS, BLOCK_LENGTH = range(31, 37)
# groups: how many, panels and output channels of each, bytes of its input channels; bytes of a panel
GROUPS, GROUP_PANELS, GROUP_CHANNELS, GROUP_BYTES, PANEL_BYTES = range(37, 42)
# tiles of a task and blocks of them, the same of panels
TILES, ROW_BLOCKS, PANELS, PANEL_BLOCKS = range(42, 46)
# bytes to add to addresses; from the filters of one image to those of the next; tiles that take turns with the panels
X_OFFSET, Y_OFFSET, FILTERS_OFFSET, R_OFFSET, FILTERS_IMAGE, TILE_GROUP = range(46, 52)
# what tasks copy (`convfetch`): 0 nothing, 1 a group, 2 folded rows; bytes between images, rows and pixels; then rows and
# pixels of the image and of the border above and left, or rows of the window and bytes between them and two zeros; pixels
# of a copied row; rows that an output row needs and from one output row to the next
FETCH, FETCH_IMAGE, FETCH_ROW, FETCH_PIXEL, FETCH_ROWS, FETCH_PIXELS, FETCH_ABOVE, FETCH_LEFT = range(52, 60)
FETCH_WIDTH, FETCH_EXTENT, FETCH_STEP = range(60, 63)
# rows and pixels of the image that tiles run over, before rows were merged
LINES, LINE_PIXELS = range(63, 65)
HELD = 65  # how filters are held: a number of `halves.KINDS`
WORDS = 66

# a piece of K: its two words are where it begins in the image, and twice its elements, plus 1 if a part of the sum ends before
PIECE = 16  # bytes of both
PART = 128  # K steps of a piece at the most, and of one part of a sum
