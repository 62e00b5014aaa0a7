"""What the launches and the kernels of Winograd convolution agree on: the words of argument blocks in their order."""

from __future__ import annotations

# patches: addresses; bytes from one image, row and pixel to the next, from one product and tile of V; numbers of a pixel
P_X, P_V, P_IMAGE, P_ROW, P_PIXEL, P_PLANE, P_TILE, P_NUMBERS = range(8)
# the input's rows and columns, those of the border before it; tiles: rows, columns, columns of a task, tasks of a row; the first
P_HEIGHT, P_WIDTH, P_ABOVE, P_BEFORE, P_ROWS, P_COLS, P_CHUNK, P_CHUNKS, P_TOP, P_LEFT = range(8, 18)
# down and across: outputs of a tile, dilations, pixels of a patch
P_DOWN, P_ACROSS, P_DILATED_DOWN, P_DILATED_ACROSS, P_HIGH, P_WIDE = range(18, 24)
P_WORDS = 24

# outputs: addresses, limits, the epilogue; bytes from one product and tile of M to the next
O_M, O_Y, O_RESIDUAL, O_BIAS, O_LOW, O_ABOVE, O_EPILOGUE, O_EPILOGUE_BLOCK, O_PLANE, O_TILE = range(10)
# bytes from one image, row and pixel to the next, of the output and of the residual; channels, rows and columns of the output
O_IMAGE, O_ROW, O_PIXEL, O_R_IMAGE, O_R_ROW, O_R_PIXEL, O_CHANNELS, O_HEIGHT, O_WIDTH = range(10, 19)
# tiles as above; outputs of a tile and dilations
O_ROWS, O_COLS, O_CHUNK, O_CHUNKS, O_TOP, O_LEFT, O_DOWN, O_ACROSS, O_DILATED_DOWN, O_DILATED_ACROSS = range(19, 29)
# where the epilogue finds what is made: the number of the first image, and of the first channel
O_FIRST_IMAGE, O_FIRST_CHANNEL = range(29, 31)
O_WORDS = 31

# groups: kernels and their blocks; how many groups, filters and bytes of a group's, bytes of the nested kernels' scratch
G_PATCHES, G_PATCHES_BLOCK, G_OUTPUTS, G_OUTPUTS_BLOCK, G_GROUPS, G_FILTERS, G_FILTERS_GROUP, G_OWN = range(8)
# bytes from one product of V and M to the next; tiles: rows and columns in all, and of a strip; strips down and across
G_V_PLANE, G_M_PLANE, G_ROWS, G_COLS, G_STRIP_ROWS, G_STRIP_COLS, G_DOWN, G_ACROSS = range(8, 16)
# bytes from one image to the next, of the input, the output and the residual
G_X_IMAGE, G_Y_IMAGE, G_R_IMAGE = range(16, 19)
G_WORDS = 19
