"""Packed MaxSim in fp32 on a CPU: the inner loop, in numba, over vector instructions written as LLVM code.

A query vector is a lane. Query vectors lie transposed, so that one instruction multiplies a document's component with
that component of eight query vectors (sixteen with AVX-512); a block of query vectors by document rows stays in
registers over all components, then goes into the running maximum of each lane. No similarity is ever written to memory,
and no document is copied, padded or reordered. LLVM does not find this form in a scalar loop, hence the intrinsics.
Rows may be fp16, bf16 or fp32; runs on any CPU.

A lane's dot product adds its components in their order, whatever the block it is computed in: equal documents have
equal scores, and a query scores the same alone and in a batch.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from colbert_lab.scoring.compiled import compiled
from colbert_lab.scoring.llvm import (
    F32,
    FLOATS,
    I8,
    I16,
    I64,
    LANES,
    PART,
    PART_FLOATS,
    PART_INTS,
    WIDE,
    added_up,
    at,
    clamped_rows,
    fetch,
    fma,
    keep_best,
    load,
    loop,
    splat,
    store,
)

# Document rows of a block, by its query registers.
_ROWS_1, _ROWS_2, _ROWS_3 = (12, 8, 6) if WIDE else (12, 6, 4)
_ROWS = {1: _ROWS_1, 2: _ROWS_2, 3: _ROWS_3}
# Document rows taken at once by all blocks of query vectors: widened they fit the first cache beside one block.
TILE = 24


def load_widened(context, builder, array_type, array, index):
    """Eight values as fp32. numba has no 16-bit floats: the bits of fp16 come as int16, those of bf16 as uint16."""
    if array_type.dtype == types.float32:
        return load(builder, at(context, builder, array_type, array, index, PART_FLOATS), 4)
    if array_type.dtype == types.int16:
        halves = ir.VectorType(ir.HalfType(), PART)
        return builder.fpext(load(builder, at(context, builder, array_type, array, index, halves), 2), PART_FLOATS)
    bits = load(builder, at(context, builder, array_type, array, index, ir.VectorType(I16, PART)), 2)
    return builder.bitcast(builder.shl(builder.zext(bits, PART_INTS), ir.Constant(PART_INTS, [16] * PART)), PART_FLOATS)


@intrinsic
def widen_row(typing, values, first, row, position, dim):
    """Write values[first : first + dim] as fp32 to row[position:]."""

    def generate(context, builder, signature, arguments):
        values_, first_, row_, position_, dim_ = arguments

        def body(number, _):
            offset = builder.mul(number, I64(PART))
            x = load_widened(context, builder, signature.args[0], values_, builder.add(first_, offset))
            target = at(context, builder, signature.args[2], row_, builder.add(position_, offset), PART_FLOATS)
            store(builder, x, target, 4)
            return []

        loop(builder, builder.sdiv(dim_, I64(PART)), [], body)
        return context.get_dummy_value()

    i = types.int64
    return types.void(values, i, row, i, i), generate


@intrinsic
def squared_norm(typing, row, position, dim):
    """Of row[position : position + dim], fp32."""

    def generate(context, builder, signature, arguments):
        row_, position_, dim_ = arguments

        def body(number, norms):
            offset = builder.add(position_, builder.mul(number, I64(PART)))
            x = load(builder, at(context, builder, signature.args[0], row_, offset, PART_FLOATS), 4)
            return [fma(builder, x, x, norms[0])]

        steps = builder.sdiv(dim_, I64(PART))
        (norms,) = loop(builder, steps, [ir.Constant(PART_FLOATS, [0.0] * PART)], body)
        return added_up(builder, norms, range(PART))

    return types.float32(row, types.int64, types.int64), generate


@intrinsic
def prefetch_row(typing, values, first, dim):
    """Begin to read values[first : first + dim], which is needed a little later; it need not be there."""

    def generate(context, builder, signature, arguments):
        values_, first_, dim_ = arguments
        start = at(context, builder, signature.args[0], values_, first_, I8)
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        fetch(builder, start, builder.mul(dim_, I64(size)))
        return context.get_dummy_value()

    return types.void(values, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def _float_block(typing, registers, rows, row, last, dim, queries, first, bias, best, lane):
    """best[lane:] = max over the block's rows of bias + row · query, for LANES x registers query vectors."""
    if not isinstance(registers, types.IntegerLiteral):
        return None
    width = registers.literal_value

    def generate(context, builder, signature, arguments):
        _, rows_, row_, last_, dim_, queries_, first_, bias_, best_, lane_ = arguments
        types_ = signature.args
        numbers = clamped_rows(builder, row_, last_, _ROWS[width])
        starts = [at(context, builder, types_[1], rows_, builder.mul(n, dim_), F32) for n in numbers]
        table = at(context, builder, types_[5], queries_, first_, FLOATS)
        initial = []
        for n in numbers:
            value = builder.load(at(context, builder, types_[7], bias_, n, F32))
            initial += [splat(builder, value, FLOATS)] * width

        def body(number, sums):
            offset = builder.mul(number, I64(width))
            lanes = [load(builder, builder.gep(table, [builder.add(offset, I64(n))]), 4) for n in range(width)]
            new = []
            for r, start in enumerate(starts):
                component = splat(builder, builder.load(builder.gep(start, [number])), FLOATS)
                new += [fma(builder, component, lanes[n], sums[r * width + n]) for n in range(width)]
            return new

        sums = loop(builder, dim_, initial, body)
        keep_best(context, builder, types_[8], best_, lane_, sums, width)
        return context.get_dummy_value()

    i = types.int64
    return types.void(registers, rows, i, i, i, queries, i, bias, best, i), generate


@compiled(error_model="numpy")
def float_rows(rows, count, dim, registers, queries, bias, best, lane):
    """best[lane:] = max over rows[:count] [count, dim] fp32 of bias + row · query, for one block of query vectors.

    The block has `registers` registers and begins at `lane`. Apart from its callers, which are compiled for each dtype.
    """
    if registers == 1:
        for r in range(0, count, _ROWS_1):
            _float_block(1, rows, r, count - 1, dim, queries, lane * dim, bias, best, lane)
    elif registers == 2:
        for r in range(0, count, _ROWS_2):
            _float_block(2, rows, r, count - 1, dim, queries, lane * dim, bias, best, lane)
    else:
        for r in range(0, count, _ROWS_3):
            _float_block(3, rows, r, count - 1, dim, queries, lane * dim, bias, best, lane)


@compiled(error_model="numpy")
def _float_blocks(rows, count, dim, blocks, queries, bias, best):
    lane = 0
    for registers in blocks:
        float_rows(rows, count, dim, registers, queries, bias, best, lane)
        lane += registers * LANES


@compiled(error_model="numpy")
def best_of_floats(values, dim, starts, lengths, blocks, queries, bounds, l2, sums, first, last):
    """Fill sums[:, first:last]: for each query the sum over its vectors of the best q·d, less |d|²/2 where `l2`.

    `values` [T x dim] are the rows end to end; document i is `lengths[i]` rows from row `starts[i]`. `blocks` holds the
    registers of each block of query vectors, `queries` these, a block after another, each [dim, LANES x registers].
    Query b has the lanes bounds[b]:bounds[b + 1]. Documents without rows are left as they are.
    """
    rows = np.empty(TILE * dim, np.float32)
    bias = np.zeros(TILE, np.float32)
    best = np.empty(blocks.sum() * LANES, np.float32)
    for document in range(first, last):
        if lengths[document] == 0:
            continue
        best[:] = -np.inf
        for done in range(0, lengths[document], TILE):
            count = min(TILE, lengths[document] - done)
            for r in range(count):
                widen_row(values, (starts[document] + done + r) * dim, rows, r * dim, dim)
                if l2:
                    bias[r] = squared_norm(rows, r * dim, dim) * np.float32(-0.5)
            _float_blocks(rows, count, dim, blocks, queries, bias, best)
        sum_lanes(best, bounds, sums, document)


@compiled(error_model="numpy")
def sum_lanes(best, bounds, sums, document):
    for query in range(len(bounds) - 1):
        total = 0.0
        for lane in range(bounds[query], bounds[query + 1]):
            total += best[lane]
        sums[query, document] = total
