"""The kernel of convolution: what a task is, and the loops around the register tile (`convtile`); `conv` launches it.

Loop order of a task: K blocks; groups of tiles; panels of output channels; tiles of the group. `conv` says why.
"""

from __future__ import annotations

from collections.abc import Callable

from . import convfetch, target
from . import convwords as word
from .ahead import ASKED, bringing
from .blocking import TILES_OF_WORD, crosses_rows, heights, single_heights, single_tiles, tallest_tile
from .image import SIZES


def factory(dtype: str, narrow: bool = False) -> Callable:
    """The kernel, on panels of two vectors or `narrow` ones of one.

    Task = (image, block of tiles, block of panels), the panels running fastest.
    Scratch: 64 bytes for the epilogue's block, a tile of zeros, one tile (for a panel that is not full, without masks),
    sums put aside, the pieces of a K block, offsets of the task's pixels if tiles go on from row to row, a K block of a panel if
    it has to be widened, fetched rows of a group.
    """
    from . import convtile, simd
    from .widening import widening

    lanes = target.current().lanes * 4 // SIZES[dtype]
    size, width = SIZES[dtype], lanes if narrow else 2 * lanes
    vector = lanes * size
    row_bytes, raw, singles = width * size, convtile.memory_type(dtype), single_heights()
    tiles_of = convtile.tiles(dtype, lanes, () if narrow else heights(), singles, width)
    tallest, few, (of_few, of_more) = singles[0], TILES_OF_WORD, single_tiles()
    stored = 1 if target.current().masks else lanes  # channels that tiles store themselves come in so many
    gather, scatter = _part_of_a_panel(raw, lanes, width)
    cut, lay_out = tables(size)
    finish = finishing()
    fetch_group, fold_rows = convfetch.copiers(raw, lanes)
    crossing, highest, longest, piece_bytes = crosses_rows(), tallest_tile(), word.PART, word.PIECE
    store, zero = simd.store(raw), simd.splat(raw, lanes)
    bring, widens, widen = bringing(), dtype == "f32", widening(lanes, width // lanes)

    def kernel(args, task, scratch):
        row_blocks, panels, panel_blocks = args[word.ROW_BLOCKS], args[word.PANELS], args[word.PANEL_BLOCKS]
        if task < 0:
            asked = (-1 - task) % ASKED
            begins, at = asked // panel_blocks // row_blocks, asked % panel_blocks * panels
            left = args[word.GROUPS] * args[word.GROUP_PANELS] - at
            weights = args[word.FILTERS] + args[word.FILTERS_OFFSET] + begins * args[word.FILTERS_IMAGE]
            each = args[word.PANEL_BYTES]
            bring(weights + at * each, min(panels, left) * each, (-1 - task) // ASKED)
            return
        oh, ow = args[word.ROWS], args[word.PIXELS]
        nd, nh, nw = args[word.SEGMENT_PLANES], args[word.SEGMENT_ROWS], args[word.SEGMENT_PIXELS]
        length = args[word.SEGMENT_LENGTH]
        first, count, second, per_row = args[word.FIRST], args[word.COUNT], args[word.SECOND], args[word.PER_ROW]
        taps, part = args[word.BLOCK_SEGMENTS], args[word.BLOCK_LENGTH]
        y_col, infinity = args[word.Y_PIXEL], 0x7FF << 52
        clips = args[word.LOW] != infinity - (1 << 63) or args[word.HIGH] != infinity
        per_group, each = args[word.GROUP_PANELS], args[word.GROUP_CHANNELS]
        tiles = args[word.TILES]
        p0, outer = task % panel_blocks * panels, task // panel_blocks
        p1 = min(args[word.GROUPS] * per_group, p0 + panels)
        t0, n = outer % row_blocks * tiles, outer // row_blocks
        t1 = min(args[word.PLANES] * oh * per_row, t0 + tiles)
        images, outputs = args[word.X] + args[word.X_OFFSET], args[word.Y] + args[word.Y_OFFSET]
        filters = args[word.FILTERS] + args[word.FILTERS_OFFSET] + n * args[word.FILTERS_IMAGE]
        half, held_row = args[word.HELD], row_bytes if args[word.HELD] == 0 else row_bytes // 2
        zeros, block = scratch + 64, scratch + 64 + highest * row_bytes
        aside = block + highest * row_bytes
        table = aside + highest * row_bytes
        for v in range(0, highest * width, lanes):
            store(zeros + v * size, zero(0.0))
        segments = nd * nh * nw
        places = table + (taps * ((part + longest - 1) // longest) * piece_bytes + 63) // 64 * 64
        # the place of the task's first tile and first panel; a division costs as much as some K steps
        at0, row0, group0 = t0 % per_row, t0 // per_row, p0 // per_group
        depth0, row0, first0 = row0 // oh, row0 % oh, (p0 - group0 * per_group) * width
        # the task's pixels [q0, q1)
        skew, lines, columns, after = count * (first - second), args[word.LINES], args[word.LINE_PIXELS], t1 % per_row
        q0 = t0 // per_row * ow + (at0 * first if at0 <= count else at0 * second + skew)
        q1 = t1 // per_row * ow + (after * first if after <= count else after * second + skew)
        widened = places
        if crossing:
            lay_out(places, q0, q1 - q0, lines, columns, args[word.X_PLANE], args[word.X_ROW], args[word.X_PIXEL])
            widened += ((q1 - q0) * 8 + 63) // 64 * 64
        copy = widened
        if half != 0:
            copy += taps * part * row_bytes
        line, held = q0 // columns, -1
        # without a single tap or channel the blocks still write bias and residual
        for s in range(0, max(1, segments), taps):
            for k in range(0, max(1, length), part):
                begins = s + k == 0
                last = s + taps >= segments and k + part >= length
                clip = last and clips
                steps = min(taps, segments - s) * min(part, length - k)
                s1, k1 = min(segments, s + taps), min(length, k + part)
                cut(table, s, s1, nh, nw, args[word.TAP_PLANE], args[word.TAP_ROW], args[word.TAP_PIXEL], k, k1)
                pieces = (s1 - s) * ((k1 - k + longest - 1) // longest)
                next_at, next_row, next_depth = at0, row0, depth0
                for t in range(t0, t1, args[word.TILE_GROUP]):
                    begin_at, begin_row, begin_depth = next_at, next_row, next_depth
                    group, column = group0, first0
                    for p in range(p0, p1):
                        if args[word.FETCH] != 0 and group != held:
                            held, rows = group, ((q1 - 1) // columns - line) * args[word.FETCH_STEP] + args[word.FETCH_EXTENT]
                            row_step, pixel_step = args[word.FETCH_ROW], args[word.FETCH_PIXEL]
                            high, wide = args[word.FETCH_ROWS], args[word.FETCH_PIXELS]
                            if args[word.FETCH] == 1:
                                fetch_group(
                                    images + n * args[word.FETCH_IMAGE] + group * args[word.GROUP_BYTES], copy,
                                    line * args[word.FETCH_STEP] - args[word.FETCH_ABOVE], rows, row_step, pixel_step, high, wide,
                                    args[word.FETCH_LEFT], args[word.FETCH_WIDTH], args[word.GROUP_BYTES],
                                )  # fmt: skip
                            else:
                                first_line = images + n * args[word.FETCH_IMAGE] + line * row_step
                                fold_rows(first_line, copy, rows, row_step, pixel_step, high, wide, args[word.FETCH_WIDTH])
                        cols, c0 = min(width, each - column), group * each + column
                        weights = filters + p * args[word.PANEL_BYTES] + (s * length + k) * held_row
                        base = zeros
                        if begins and args[word.BIAS] != 0:
                            base = args[word.BIAS] + c0 * size
                        at, row, depth, moved = begin_at, begin_row, begin_depth, True
                        y_line, r_line = outputs, args[word.RESIDUAL]
                        image = copy - line * args[word.X_ROW]
                        if args[word.FETCH] == 0:
                            image = images + n * args[word.X_IMAGE] + group * args[word.GROUP_BYTES]
                        # the first tiles to use this panel bring the next one to L2, each a share
                        following, fetch_end = weights + args[word.PANEL_BYTES], 0
                        if t == t0:
                            fetch_end = following + steps * held_row
                        if widens and half != 0:
                            widen(args, weights, steps, half, widened)
                            weights = widened
                        left = min(args[word.TILE_GROUP], t1 - t)
                        while left > 0:
                            if moved:
                                y_line = outputs + c0 * size
                                y_line += n * args[word.Y_IMAGE] + depth * args[word.Y_PLANE] + row * args[word.Y_ROW]
                                r_line = args[word.RESIDUAL] + args[word.R_OFFSET] + c0 * size
                                r_line += n * args[word.R_IMAGE] + depth * args[word.R_PLANE] + row * args[word.R_ROW]
                            # a run of tiles of one height in one row
                            height, col, run = first, at * first, min(left, count - at)
                            if at >= count:
                                height, col, run = second, at * second + skew, min(left, per_row - at)
                            place, y = places + ((depth * oh + row) * ow + col - q0) * 8, y_line + col * y_col
                            x = image
                            if not crossing:
                                x += depth * args[word.X_PLANE] + row * args[word.X_ROW] + col * args[word.X_PIXEL]
                            start, start_row, common, out, out_row = y, y_col, base, y, y_col
                            if begins:
                                start, start_row = 0, 0
                                if args[word.RESIDUAL] != 0:
                                    start, start_row = r_line + col * args[word.R_PIXEL], args[word.R_PIXEL]
                            if cols % stored != 0:
                                run = 1
                                gather(start if start != 0 else zeros, start_row, base, block, height, cols)
                                start, start_row, common, out, out_row = block, row_bytes, zeros, block, row_bytes
                            pixels, done = run * height, 0
                            while done < pixels:
                                rows, alike, rest = height, run, pixels - done
                                if cols <= lanes:
                                    rows = tallest
                                    if rest <= few:
                                        rows = of_few >> 4 * (rest - 1) & 15
                                    elif rest <= 2 * few:
                                        rows = of_more >> 4 * (rest - 1 - few) & 15
                                    alike = rest // rows if rows == tallest or rest == 2 * rows else 1
                                tiles_of(args, cols, rows, alike, x, place, weights, following, fetch_end,
                                     start + done * start_row, start_row, common, out + done * out_row, out_row, table, pieces,
                                     clip, zeros, aside)  # fmt: skip
                                following += alike * steps * vector
                                place, done = place + alike * rows * 8, done + alike * rows
                                if not crossing:
                                    x += alike * rows * args[word.X_PIXEL]
                            if cols % stored != 0:
                                scatter(block, y, y_col, height, cols)
                            at += run
                            left -= run
                            moved = at == per_row
                            if moved:
                                at, row = 0, row + 1
                                if row == oh:
                                    row, depth = 0, depth + 1
                        next_at, next_row, next_depth = at, row, depth
                        if last and args[word.EPILOGUE] != 0:
                            begin = begin_at * first if begin_at <= count else begin_at * second + skew
                            stop = at * first if at <= count else at * second + skew
                            pixel = (begin_depth * oh + begin_row) * ow + begin
                            end = (depth * oh + row) * ow + stop
                            finish(args[word.EPILOGUE], args[word.EPILOGUE_BLOCK], scratch, n, pixel, end - pixel, c0, cols)
                        column += width
                        if column >= each:
                            column, group = 0, group + 1

    return kernel


def _part_of_a_panel(dtype: str, lanes: int, width: int) -> tuple[Callable, Callable]:
    """Subroutines for panels that are not full, whose tiles are computed in scratch without masks, in rows of a panel's `width`.

    ``gather(x, x_row, base, y, rows, cols)``: y[i, :] = x[i, :cols] + base[:cols], the vectors of a row that hold columns.
    ``scatter(x, y, y_row, rows, cols)``: y[i, :cols] = x[i, :cols].
    """
    from . import simd
    from .subroutine import subroutine

    size, row_bytes = SIZES[dtype], width * SIZES[dtype]
    load_first, load_one = simd.load_first(dtype, lanes), simd.load(dtype, 0)
    load, store = simd.load(dtype, lanes), simd.store(dtype)

    @subroutine
    def gather(x, x_row, base, y, rows, cols):
        for i in range(rows):
            for v in range(0, cols, lanes):
                value = load_first(x + i * x_row + v * size, cols - v) + load_first(base + v * size, cols - v)
                store(y + i * row_bytes + v * size, value)

    @subroutine
    def scatter(x, y, y_row, rows, cols):
        # the rest one by one: masked stores of AVX2 take AMD's CPUs 12 cycles
        whole = cols // lanes * lanes
        for i in range(rows):
            for v in range(0, whole, lanes):
                store(y + i * y_row + v * size, load(x + i * row_bytes + v * size))
            for v in range(whole, cols):
                store(y + i * y_row + v * size, load_one(x + i * row_bytes + v * size))

    return gather, scatter


def tables(size: int) -> tuple[Callable, Callable]:
    """Subroutines that write the tables that tiles read.

    ``cut(table, first, after, rows, columns, plane_step, row_step, step, begin, end)``: a K block as pieces: the elements from
    `begin` to `end` of the segments from `first` to `after`.
    ``lay_out(places, first, count, lines, columns, depth_step, line_step, step)``: bytes from the image's first pixel to each
    of `count` pixels from pixel number `first` on.
    """
    from . import simd
    from .subroutine import subroutine

    longest, words = word.PART, simd.block

    @subroutine
    def cut(table, first, after, rows, columns, plane_step, row_step, step, begin, end):
        pieces, at, taken = words(table), 0, 0
        for s in range(first, after):
            offset = s // (rows * columns) * plane_step + s // columns % rows * row_step + s % columns * step
            for k in range(begin, end, longest):
                steps, full = min(longest, end - k), taken >= longest
                pieces[at], pieces[at + 1] = offset + k * size, 2 * steps + (1 if full else 0)
                taken = steps if full else taken + steps
                at += 2

    @subroutine
    def lay_out(places, first, count, lines, columns, depth_step, line_step, step):
        pixels, line = words(places), first // columns
        w, h, d = first % columns, line % lines, line // lines
        for i in range(count):
            pixels[i] = d * depth_step + h * line_step + w * step
            w += 1
            if w == columns:
                w, h = 0, h + 1
                if h == lines:
                    h, d = 0, d + 1

    return cut, lay_out


def finishing() -> Callable:
    """The subroutine ``finish(kernel, block, scratch, image, pixel, pixels, channel, channels)``: an epilogue of outputs."""
    from . import simd
    from .subroutine import subroutine

    words, call_kernel = simd.block, simd.call_kernel

    @subroutine
    def finish(kernel, block, scratch, image, pixel, pixels, channel, channels):
        where = words(scratch)
        where[0], where[1], where[2], where[3], where[4], where[5] = image, 0, pixel, pixels, channel, channels
        call_kernel(kernel, block, 0, scratch)

    return finish
