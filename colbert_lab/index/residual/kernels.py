"""The compiled loops of a search; each works on a range, so that threads can share the whole.

A query of m vectors is compared with documents through its centroid scores S = C·Qᵀ: as fp32 [K, lanes], and as bytes
[K, lanes] for the approximation, where one instruction takes the maximum of 32 query vectors. reference.py says plainly
what each loop computes.
"""

import numpy as np

from colbert_lab.index.residual.simd import (
    BYTES,
    FLOATS,
    TILE,
    at_least,
    compiled,
    copy_floats,
    lowest_bit,
    max_rows,
    product_tile,
)


@compiled
def centroid_scores(centroids, queries, out, first, last):
    """out[first:last] [K, lanes] = centroids [K, d] · queries [lanes / 8, d, 8]; first and last are multiples of 8."""
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
    centroids, first_dim, words, shared, levels = codec
    codes, packed, scales, offsets = store
    lanes = table.shape[1]
    dim = queries.shape[1]
    # Codewords are copied 8 values at a time, whatever their width: the next one overwrites what was too much.
    decoded = np.zeros(dim + FLOATS, np.float32)
    near = np.empty(lanes, np.uint8)
    best = np.empty(vectors, np.float32)
    close = np.empty(lanes, np.int64)
    stride = np.int64(0) if shared else np.int64(256 * FLOATS)
    for n in range(first, last):
        row = rows[n]
        for lane in range(0, lanes, BYTES):
            max_rows(table, codes, offsets[row], offsets[row + 1], lane, near)
        for i in range(vectors):
            near[i] = np.uint8(max(np.int32(near[i]) - margin, 0))
            best[i] = -np.inf
        for i in range(vectors, lanes):
            near[i] = 255
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
            for byte in range(packed.shape[1]):
                copy_floats(words, byte * stride + np.int64(packed[token, byte]) * FLOATS, decoded, first_dim[byte])
            scale = levels[scales[token]] if len(scales) > 0 else np.float32(1)
            square = np.float32(0)
            for j in range(dim):
                value = centroids[code, j] + scale * decoded[j]
                decoded[j] = value
                square += value * value
            norm = np.float32(1) / max(np.sqrt(square), np.float32(1e-12))
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
