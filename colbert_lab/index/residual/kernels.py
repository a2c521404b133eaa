"""The compiled loops of a search; each works on a range, so that threads can share the whole.

A query of m vectors is compared with documents through its centroid scores S = C·Qᵀ: as fp32 [K, lanes], and as bytes
[K, lanes] for the approximation, where one instruction takes the maximum of 32 query vectors. reference.py says plainly
what each loop computes.
"""

import numpy as np

from colbert_lab.index.residual.simd import (
    BYTES,
    TILE,
    WORD,
    add_scores,
    at_least,
    compiled,
    copy_bytes,
    copy_floats,
    max_rows,
    prefetch,
    product_tile,
    products_with,
)
from colbert_lab.scoring.code_loops import products_of_codes, reaching
from colbert_lab.scoring.llvm import LANES
from colbert_lab.scoring.simd_codes import lowest_bit

# Document vectors whose estimates are alive at once: they fit the first cache beside the query vectors.
_RUN = 128


@compiled
def centroid_scores(centroids, queries, out, first, last):
    """out[first:last] [K, lanes] = centroids [K, d] · queries [blocks, d, LANES]; first and last are multiples of 8."""
    for row in range(first, last, TILE):
        for block in range(len(queries)):
            product_tile(centroids, row, queries, block, out)


@compiled
def spread(scores, centroids, out):
    """out [2, lanes] = the largest and the mean of the first `centroids` rows of scores [K, lanes]."""
    lanes = scores.shape[1]
    for lane in range(lanes):
        out[0, lane] = scores[0, lane]
        out[1, lane] = 0
    for row in range(centroids):
        for lane in range(lanes):
            score = scores[row, lane]
            out[0, lane] = max(out[0, lane], score)
            out[1, lane] += score
    for lane in range(lanes):
        out[1, lane] /= centroids


@compiled
def quantise(scores, low, steps, vectors, out, first, last):
    """out[first:last] [K, lanes] uint8 = (scores - low) · steps, rounded, clipped to 0 .. 255; 0 beyond `vectors`."""
    for row in range(first, last):
        for lane in range(vectors, out.shape[1]):
            out[row, lane] = 0
        for lane in range(vectors):
            value = (scores[row, lane] - low[lane]) * steps + np.float32(0.5)
            out[row, lane] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))


@compiled
def approximate(table, codes, offsets, rows, out, first, last):
    """out[first:last] int32 = for each of rows the sum over lanes of the largest table [K, lanes] of its codes."""
    lanes = table.shape[1]
    best = np.empty(lanes, np.uint8)
    for n in range(first, last):
        row = rows[n]
        total = 0
        for lane in range(0, lanes, BYTES):
            max_rows(table, codes, offsets[row], offsets[row + 1], lane, best)
        for lane in range(lanes):
            total += np.int32(best[lane])
        out[n] = total


@compiled
def refine(table, vectors, margin, queries, codec, store, rows, out, first, last):
    """out[first:last] fp32 = for each of rows the sum over query vectors of the best decoded similarity.

    For a query vector only those document vectors are decoded whose centroid is within `margin` steps of table's of the
    document's best. queries are [m, d]; codec and store are the tuples of Codes.tables and Codes.arrays.
    """
    codes, offsets = store[0], store[3]
    lanes = table.shape[1]
    dim = queries.shape[1]
    decoded = np.zeros(dim + WORD, np.float32)
    near = np.empty(lanes, np.uint8)
    best = np.empty(vectors, np.float32)
    close = np.empty(lanes, np.int64)
    for n in range(first, last):
        row = rows[n]
        _near(table, vectors, margin, codes, offsets[row], offsets[row + 1], near)
        best[:] = -np.inf
        for token in range(offsets[row], offsets[row + 1]):
            code = np.int64(codes[token])
            count = 0
            for lane in range(0, lanes, BYTES):
                bits = at_least(table, code, lane, near)
                while bits != 0:
                    close[count] = lane + lowest_bit(bits)
                    count += 1
                    bits &= bits - np.uint32(1)
            if count == 0:
                continue
            norm = _decode(token, code, codec, store, decoded)
            # Four query vectors at a time share what is read of the document's; the last ones may come twice.
            for at in range(0, count, 4):
                a, b = close[at], close[min(at + 1, count - 1)]
                c, d = close[min(at + 2, count - 1)], close[min(at + 3, count - 1)]
                dot_a, dot_b, dot_c, dot_d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for j in range(dim):
                    value = decoded[j]
                    dot_a += queries[a, j] * value
                    dot_b += queries[b, j] * value
                    dot_c += queries[c, j] * value
                    dot_d += queries[d, j] * value
                best[a] = max(best[a], norm * dot_a)
                best[b] = max(best[b], norm * dot_b)
                best[c] = max(best[c], norm * dot_c)
                best[d] = max(best[d], norm * dot_d)
        total = np.float32(0)
        for i in range(vectors):
            total += best[i]
        out[n] = total


@compiled
def refine_by_codes(
    table, vectors, margin, window, scores, queries, coded, codec, small, store, rows, out, first, last
):
    """As `refine`, decoding only what 8-bit products say can be the best match; needs AVX2 and d a multiple of 16.

    The document vectors that are near for any query vector are estimated for all; those that come within `window` of
    the best estimate of a query vector are decoded and multiplied with it in fp32. `scores` are the centroids'
    [K, lanes], `coded` the query vectors' blocks, table, correction and units (scoring.codes.CodedQueries), `small` is
    Codes.small.
    """
    blocks, lane_table, correction, units = coded
    words, step, centroids, centroid_step, squares, first_dim, stride = small
    codes, packed, scales, offsets = store
    levels = codec[4]
    dim = queries.shape[1]
    decoded = np.zeros(dim + WORD, np.float32)
    near = np.empty(table.shape[1], np.uint8)
    lanes = blocks.sum() * LANES
    likely, floor, best = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    unused = np.empty(lanes, np.float32)
    # Codewords are copied 8 values at a time, whatever their width: the next one overwrites what was too much.
    some, tokens = np.zeros(_RUN * dim + 8, np.uint8), np.empty(_RUN, np.int64)
    scale, inverse, nothing = np.empty(_RUN, np.float32), np.empty(_RUN, np.float32), np.zeros(_RUN, np.float32)
    estimates = np.empty(_RUN * blocks.max() * LANES, np.float32)
    products = np.empty(2 * _RUN, np.int32)
    for n in range(first, last):
        row = rows[n]
        _near(table, vectors, margin, codes, offsets[row], offsets[row + 1], near)
        likely[:] = -np.inf
        best[:] = -np.inf
        floor[:] = np.inf
        token = offsets[row]
        while token < offsets[row + 1]:
            count = 0
            while token < offsets[row + 1] and count < _RUN:
                code = np.int64(codes[token])
                hit = np.uint32(0)
                for lane in range(0, table.shape[1], BYTES):
                    hit |= at_least(table, code, lane, near)
                if hit != 0:
                    prefetch(scores, code)
                    for byte in range(packed.shape[1]):
                        word = (byte * stride + np.int64(packed[token, byte])) * 8
                        copy_bytes(words, word, some, count * dim + first_dim[byte])
                    tokens[count] = token
                    count += 1
                token += 1
            # Apart from the copies, whose bytes are not to be read in wider pieces until they are written.
            for r in range(count):
                products_with(some, r * dim, centroids, np.int64(codes[tokens[r]]), products, 2 * r)
            for r in range(count):
                level = step * (levels[scales[tokens[r]]] if len(scales) > 0 else np.float32(1))
                crossed = np.float32(2) * level * centroid_step * np.float32(products[2 * r])
                square = squares[codes[tokens[r]]] + crossed + level * level * np.float32(products[2 * r + 1])
                inverse[r] = np.float32(1) / np.sqrt(max(square, np.float32(1e-12)))
                scale[r] = level
            lane = 0
            for registers in blocks:
                width = registers * LANES
                products_of_codes(
                    some,
                    dim,
                    0,
                    count,
                    registers,
                    lane_table,
                    correction,
                    scale,
                    units,
                    nothing,
                    unused,
                    lane,
                    estimates,
                )
                _add_scores(registers, estimates, count, scores, codes, tokens, lane, inverse, likely)
                for i in range(lane, min(lane + width, vectors)):
                    floor[i] = likely[i] - window
                for r in range(count):
                    bits = reaching(registers, estimates, r * width, floor, lane)
                    if bits == 0:
                        continue
                    norm = _decode(tokens[r], np.int64(codes[tokens[r]]), codec, store, decoded)
                    while bits != 0:
                        i = lane + lowest_bit(bits)
                        bits &= bits - np.uint64(1)
                        if i >= vectors:  # reached by what is no number alone
                            continue
                        dot = np.float32(0)
                        for j in range(dim):
                            dot += queries[i, j] * decoded[j]
                        best[i] = max(best[i], norm * dot)
                lane += width
        total = np.float32(0)
        for i in range(vectors):
            total += best[i]
        out[n] = total


@compiled
def _add_scores(registers, estimates, count, scores, codes, tokens, lane, factors, best):
    """add_scores for `count` document vectors, whose numbers are in tokens."""
    if registers == 1:
        for r in range(count):
            add_scores(1, estimates, r * LANES, scores, np.int64(codes[tokens[r]]), lane, factors[r], best)
    elif registers == 2:
        for r in range(count):
            add_scores(2, estimates, r * 2 * LANES, scores, np.int64(codes[tokens[r]]), lane, factors[r], best)
    else:
        for r in range(count):
            add_scores(3, estimates, r * 3 * LANES, scores, np.int64(codes[tokens[r]]), lane, factors[r], best)


@compiled
def _near(table, vectors, margin, codes, start, end, near):
    """near [lanes] = what a row of table must reach to be within `margin` of the best of codes[start:end]."""
    for lane in range(0, len(near), BYTES):
        max_rows(table, codes, start, end, lane, near)
    for i in range(vectors):
        near[i] = np.uint8(max(np.int32(near[i]) - margin, 0))
    for i in range(vectors, len(near)):
        near[i] = 255


@compiled
def _decode(token, code, codec, store, decoded):
    """decoded [d + 8] = a document vector before it is normalised; what normalises it."""
    centroids, first_dim, words, shared, levels = codec
    packed, scales = store[1], store[2]
    stride = np.int64(0) if shared else np.int64(256 * WORD)
    for byte in range(packed.shape[1]):
        copy_floats(words, byte * stride + np.int64(packed[token, byte]) * WORD, decoded, first_dim[byte])
    scale = levels[scales[token]] if len(scales) > 0 else np.float32(1)
    square = np.float32(0)
    for j in range(centroids.shape[1]):
        value = centroids[code, j] + scale * decoded[j]
        decoded[j] = value
        square += value * value
    return np.float32(1) / max(np.sqrt(square), np.float32(1e-12))
