"""The loops over 8-bit codes, compiled; they need AVX2.

    code_rows, code_queries    codes of vectors, and how far they are off
    best_of_codes              MaxSim of codes
    best_by_codes              MaxSim of the vectors themselves, most of it decided by their codes

simd_codes.py says what codes are.
"""

import numpy as np

from colbert_lab.scoring.compiled import compiled
from colbert_lab.scoring.llvm import LANES, PART, WIDE
from colbert_lab.scoring.simd import TILE, float_rows, prefetch_row, squared_norm, sum_lanes, widen_row
from colbert_lab.scoring.simd_codes import (
    ROWS_1,
    ROWS_2,
    ROWS_3,
    code_block,
    code_products,
    code_row,
    lanes_reaching,
    peak_of,
)

# Rows whose estimates are alive at once: most documents are one run.
_RUN = 512
# Below this a row's largest value has no scale in fp32.
_TINY = np.float32(1e-18)
# A pair of products must fit 16 bits: 255 x (64 + 64) < 2**15. Four sums make a dot product; each must fit.
QUERY_PEAK, SUM = 64, 2**15 - 1


@compiled(error_model="numpy")
def code_rows(values, dim, most, codes, scales, errors, norms, squares, quarters, first, last):
    """Code the rows first:last of values [T x dim]: `codes` [T x dim] and `scales` [T].

    |code| is at most 127 and a row of codes at most about `most` long. `errors` [T] is |row - coded|, `norms` [T] the
    larger of both lengths, `squares` [T] the row's squared length; `quarters` [4] the largest lengths of the quarters
    of codes, so far and now. What is not finite has an error that is no number.
    """
    row, facts = np.empty(dim, np.float32), np.empty(5, np.float32)
    for t in range(first, last):
        widen_row(values, t * dim, row, 0, dim)
        peak, square = peak_of(row, dim), squared_norm(row, 0, dim)
        norm = np.sqrt(square)
        scale = max(peak / np.float32(127), norm / most) if peak > _TINY else np.float32(1)
        code_row(row, dim, scale, codes, t * dim, facts)
        scales[t], squares[t] = scale, square
        errors[t] = np.sqrt(facts[0])
        norms[t] = max(norm, scale * np.sqrt(facts[1] + facts[2] + facts[3] + facts[4]))
        for part in range(4):
            quarters[part] = max(quarters[part], np.sqrt(facts[1 + part]))


@compiled(error_model="numpy")
def code_queries(vectors, largest, limits, whole, units, sums, norms, residuals):
    """Whole numbers [m, d] int8 and their units [m] for query vectors [m, d] fp32: as fine as no sum can overflow.

    A number is at most `largest` (QUERY_PEAK, or 127 where sums have 32 bits), and a quarter of them `limits` [4] long
    (simd_codes.py). `sums` [m, 4] int32 is what the numbers of each quarter add up to; `norms` and `residuals` [m]
    float64 are |q| and |q - whole x unit|. What is too large to be coded is left to the residual.
    """
    dim = vectors.shape[1]
    middle = (dim // PART + 1) // 2 * PART
    values = np.empty(dim, np.float64)
    squares, totals = np.empty(4, np.float64), np.empty(4, np.int64)
    for i in range(len(vectors)):
        peak = np.float64(_TINY)
        squares[:] = 0.0
        for j in range(dim):
            values[j] = vectors[i, j] if abs(vectors[i, j]) < 1 / _TINY else 0.0
            peak = max(peak, abs(values[j]))
            squares[j // middle * 2 + j // 2 % 2] += values[j] * values[j]
        scale = np.float64(largest)
        for part in range(4):
            if squares[part] > 0.0:
                scale = min(scale, peak * limits[part] / np.sqrt(squares[part]))
        fits = False
        while not fits:
            squares[:] = 0.0
            totals[:] = 0
            for j in range(dim):
                number = np.rint(values[j] / peak * scale)
                part = j // middle * 2 + j // 2 % 2
                whole[i, j] = np.int8(number)
                squares[part] += number * number
                totals[part] += np.int64(number)
            fits = True
            for part in range(4):
                fits = fits and squares[part] <= limits[part] * limits[part]
            if not fits:
                scale *= 0.98
        units[i] = np.float32(peak / scale)
        norm, residual = 0.0, 0.0
        for j in range(dim):
            value = np.float64(vectors[i, j])
            norm += value * value
            error = value - np.float64(whole[i, j]) * np.float64(units[i])
            residual += error * error
        norms[i], residuals[i] = np.sqrt(norm), np.sqrt(residual)
        for part in range(4):
            sums[i, part] = totals[part]


def corrections(sums: np.ndarray) -> np.ndarray:
    """What the products of these lanes begin with: -128 times what their whole numbers add up to, [lanes, 4] int32.

    A lane's as one int32, or, without the instruction for that, as four int16, which wrap around to where they belong,
    a register's of the first two quarters before those of the others.
    """
    if WIDE:
        return -128 * sums.sum(1, dtype=np.int32)
    return (-128 * sums).astype(np.int16).reshape(-1, LANES, 2, 2).transpose(0, 2, 1, 3).reshape(-1)


@compiled(error_model="numpy")
def best_of_codes(
    codes, dim, starts, lengths, blocks, queries, correction, bounds, scales, units, bias, sums, first, last
):
    """As `best_of_floats`, of codes: row t of [T x dim] stands for scales[t] x (codes[t] - 128) and adds bias[t].

    `queries` are whole numbers of the `units` of their lanes; `correction` is what corrections() made of their sums.
    """
    best = np.empty(blocks.sum() * LANES, np.float32)
    for document in range(first, last):
        if lengths[document] == 0:
            continue
        best[:] = -np.inf
        end = starts[document] + lengths[document]
        lane = 0
        for registers in blocks:
            table = lane * dim
            if registers == 1:
                for r in range(starts[document], end, ROWS_1):
                    code_block(1, codes, r, end - 1, dim, queries, table, correction, scales, units, bias, best, lane)
            elif registers == 2:
                for r in range(starts[document], end, ROWS_2):
                    code_block(2, codes, r, end - 1, dim, queries, table, correction, scales, units, bias, best, lane)
            else:
                for r in range(starts[document], end, ROWS_3):
                    code_block(3, codes, r, end - 1, dim, queries, table, correction, scales, units, bias, best, lane)
            lane += registers * LANES
        sum_lanes(best, bounds, sums, document)


@compiled(error_model="numpy")
def products_of_codes(codes, dim, start, end, registers, queries, correction, scales, units, bias, best, lane, out):
    """out [end - start, LANES x registers] = the estimates of rows start:end for the query vectors from `lane`.

    best[lane:] becomes the largest of them and of what it was.
    """
    at_ = lane * dim
    if registers == 1:
        for r in range(start, end, ROWS_1):
            code_products(
                1, codes, r, end - 1, dim, queries, at_, correction, scales, units, bias, best, lane, out, start
            )
    elif registers == 2:
        for r in range(start, end, ROWS_2):
            code_products(
                2, codes, r, end - 1, dim, queries, at_, correction, scales, units, bias, best, lane, out, start
            )
    else:
        for r in range(start, end, ROWS_3):
            code_products(
                3, codes, r, end - 1, dim, queries, at_, correction, scales, units, bias, best, lane, out, start
            )


@compiled(error_model="numpy")
def reaching(registers, estimates, position, floor, lane):
    """Bits, as uint64, of the LANES x registers lanes where estimates[position:] are not below floor[lane:]."""
    if registers == 1:
        return lanes_reaching(1, estimates, position, floor, lane)
    if registers == 2:
        return lanes_reaching(2, estimates, position, floor, lane)
    return lanes_reaching(3, estimates, position, floor, lane)


@compiled(error_model="numpy")
def best_by_codes(
    values,
    codes,
    dim,
    starts,
    lengths,
    blocks,
    floats,
    queries,
    correction,
    bounds,
    scales,
    units,
    bias,
    errors,
    norms,
    slack,
    l2,
    sums,
    first,
    last,
):
    """What `best_of_floats` adds up, bit for bit, from fp32 products of those rows alone that can be a best match.

    `floats` are the query vectors of best_of_floats, the other tables those of best_of_codes. An estimate of a
    row of document i is off by at most slack[0, lane] x errors[i] + slack[1, lane] x norms[i] + slack[2, lane]
    (float64): where it is below what another row reaches by more than that, the row is not the best match.
    """
    rows, row_bias = np.empty(TILE * dim, np.float32), np.zeros(TILE, np.float32)
    estimates, chosen = np.empty(_RUN * blocks.max() * LANES, np.float32), np.empty(_RUN, np.int64)
    looked, lanes = np.empty(_RUN, np.bool_), blocks.sum() * LANES
    likely, floor, best = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    for document in range(first, last):
        if lengths[document] == 0:
            continue
        likely[:] = -np.inf
        best[:] = -np.inf
        lane = 0
        for registers in blocks:
            width = registers * LANES
            for done in range(0, lengths[document], _RUN):
                count = min(_RUN, lengths[document] - done)
                start = starts[document] + done
                products_of_codes(
                    codes,
                    dim,
                    start,
                    start + count,
                    registers,
                    queries,
                    correction,
                    scales,
                    units,
                    bias,
                    likely,
                    lane,
                    estimates,
                )
                # The rows that look best, then those that may be better than these are.
                for looks in (True, False):
                    for i in range(lane, lane + width):
                        floor[i] = likely[i]
                        if i >= slack.shape[1]:
                            floor[i] = np.inf  # a lane without a query vector
                        elif not looks:
                            off = slack[0, i] * errors[document] + slack[1, i] * norms[document] + slack[2, i]
                            # In fp64, and lowered by more than rounding to fp32 can lift it.
                            reached = np.float64(best[i]) - off
                            floor[i] = reached - 1e-6 * abs(reached)
                    found = 0
                    for r in range(count):
                        reaches = reaching(registers, estimates, r * width, floor, lane) != 0
                        chosen[found] = start + r  # without a branch: which rows reach cannot be foretold
                        found += reaches and (looks or not looked[r])
                        looked[r] = reaches
                    for n in range(found):
                        prefetch_row(values, chosen[n] * dim, dim)
                    for taken in range(0, found, TILE):
                        some = min(TILE, found - taken)
                        for n in range(some):
                            widen_row(values, chosen[taken + n] * dim, rows, n * dim, dim)
                            if l2:
                                row_bias[n] = squared_norm(rows, n * dim, dim) * np.float32(-0.5)
                        float_rows(rows, some, dim, registers, floats, row_bias, best, lane)
            lane += width
        sum_lanes(best, bounds, sums, document)
