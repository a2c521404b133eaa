"""The two inner loops of packed MaxSim on a CPU, in numba, over vector instructions written as LLVM code.

A query vector is a lane. Query vectors lie transposed, so that one instruction multiplies a document's component with
that component of eight query vectors; a block of query vectors by document rows stays in registers over all
components, then goes into the running maximum of each lane. No similarity is ever written to memory, and no document
is copied, padded or reordered. LLVM does not find this form in a scalar loop, hence the intrinsics.

    best_of_floats    fp32 products of rows widened from fp16, bf16 or fp32; runs on any CPU
    best_of_codes     8-bit products (vpmaddubsw); needs AVX2

A lane's dot product adds its components in their order, whatever the block it is computed in: equal documents have
equal scores, and a query scores the same alone and in a batch.
"""

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from colbert_lab.scoring.compiled import compiled

LANES = 8
# Query registers of a block; the blocks below keep accumulators, operands and a product in AVX2's 16 registers.
MAX_REGISTERS = 3
_FLOAT_ROWS = {1: 12, 2: 6, 3: 4}
_CODE_ROWS = {1: 6, 2: 4, 3: 3}
# Document rows taken at once by all blocks of query vectors: widened they fit the first cache beside one block.
_TILE = 24

_F32, _I64, _I32, _I16, _I8 = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(16), ir.IntType(8)
_FLOATS, _INTS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_SHORTS, _BYTES = ir.VectorType(_I16, 2 * LANES), ir.VectorType(_I8, 4 * LANES)


def has_avx2() -> bool:
    """Whether this CPU multiplies 8-bit vectors as `best_of_codes` needs it."""
    return bool(get_host_cpu_features().get("avx2"))


def widens_half() -> bool:
    """Whether this CPU converts fp16 by an instruction: else LLVM would call a function that may not exist."""
    features = get_host_cpu_features()
    return bool(features.get("f16c") or features.get("fullfp16") or features.get("neon"))


def _at(context, builder, array_type, array, index, element):
    """A pointer to array[index], as a pointer to `element`."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), element.as_pointer())


def _load(builder, pointer, align):
    value = builder.load(pointer)
    value.align = align
    return value


def _store(builder, value, pointer, align):
    builder.store(value, pointer).align = align


def _splat(builder, scalar, vector):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count))


def _call(builder, name, result, *arguments):
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _fma(builder, a, b, c):
    return _call(builder, f"llvm.fmuladd.v{LANES}f32", _FLOATS, a, b, c)


def _loop(builder, steps, initial, body):
    """The values after `steps` (at least 1) rounds of `values = body(number, values)`, kept in registers."""
    before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    number, carried = builder.phi(_I64), [builder.phi(value.type) for value in initial]
    values = body(number, carried)
    following = builder.add(number, _I64(1))
    for phi, first, value in zip([number, *carried], [_I64(0), *initial], [following, *values]):
        phi.add_incoming(first, before)
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    return values


def _load_widened(context, builder, array_type, array, index):
    """Eight values as fp32. numba has no 16-bit floats: the bits of fp16 come as int16, those of bf16 as uint16."""
    if array_type.dtype == types.float32:
        return _load(builder, _at(context, builder, array_type, array, index, _FLOATS), 4)
    if array_type.dtype == types.int16:
        halves = ir.VectorType(ir.HalfType(), LANES)
        return builder.fpext(_load(builder, _at(context, builder, array_type, array, index, halves), 2), _FLOATS)
    bits = _load(builder, _at(context, builder, array_type, array, index, ir.VectorType(_I16, LANES)), 2)
    return builder.bitcast(builder.shl(builder.zext(bits, _INTS), ir.Constant(_INTS, [16] * LANES)), _FLOATS)


@intrinsic
def _widen_row(typing, values, first, row, position, dim):
    """Write values[first : first + dim] as fp32 to row[position:]."""

    def generate(context, builder, signature, arguments):
        values_, first_, row_, position_, dim_ = arguments

        def body(number, _):
            offset = builder.mul(number, _I64(LANES))
            x = _load_widened(context, builder, signature.args[0], values_, builder.add(first_, offset))
            target = _at(context, builder, signature.args[2], row_, builder.add(position_, offset), _FLOATS)
            _store(builder, x, target, 4)
            return []

        _loop(builder, builder.sdiv(dim_, _I64(LANES)), [], body)
        return context.get_dummy_value()

    i = types.int64
    return types.void(values, i, row, i, i), generate


@intrinsic
def _squared_norm(typing, row, position, dim):
    """Of row[position : position + dim], fp32."""

    def generate(context, builder, signature, arguments):
        row_, position_, dim_ = arguments

        def body(number, norms):
            offset = builder.add(position_, builder.mul(number, _I64(LANES)))
            x = _load(builder, _at(context, builder, signature.args[0], row_, offset, _FLOATS), 4)
            return [_fma(builder, x, x, norms[0])]

        steps = builder.sdiv(dim_, _I64(LANES))
        (norms,) = _loop(builder, steps, [ir.Constant(_FLOATS, [0.0] * LANES)], body)
        total = builder.extract_element(norms, _I32(0))
        for lane in range(1, LANES):
            total = builder.fadd(total, builder.extract_element(norms, _I32(lane)))
        return total

    return types.float32(row, types.int64, types.int64), generate


def _clamped(builder, row, last, rows):
    """The numbers of a block's rows. Past the last one it repeats, which changes no maximum."""
    numbers = [builder.add(row, _I64(r)) for r in range(rows)]
    return [builder.select(builder.icmp_signed("<", n, last), n, last) for n in numbers]


def _keep_best(context, builder, best_type, best, lane, found, registers):
    """best = max(best, found) lane by lane; `found` holds `registers` vectors a row."""
    for n in range(registers):
        pointer = _at(context, builder, best_type, best, builder.add(lane, _I64(n * LANES)), _FLOATS)
        kept = _load(builder, pointer, 4)
        for value in found[n::registers]:
            kept = builder.select(builder.fcmp_ordered(">", value, kept), value, kept)
        _store(builder, kept, pointer, 4)


@intrinsic(prefer_literal=True)
def _float_block(typing, registers, rows, row, last, dim, queries, first, bias, best, lane):
    """best[lane:] = max over the block's rows of bias + row · query, for 8 x registers query vectors."""
    if not isinstance(registers, types.IntegerLiteral):
        return None
    width = registers.literal_value

    def generate(context, builder, signature, arguments):
        _, rows_, row_, last_, dim_, queries_, first_, bias_, best_, lane_ = arguments
        types_ = signature.args
        numbers = _clamped(builder, row_, last_, _FLOAT_ROWS[width])
        starts = [_at(context, builder, types_[1], rows_, builder.mul(n, dim_), _F32) for n in numbers]
        table = _at(context, builder, types_[5], queries_, first_, _FLOATS)
        initial = []
        for n in numbers:
            value = builder.load(_at(context, builder, types_[7], bias_, n, _F32))
            initial += [_splat(builder, value, _FLOATS)] * width

        def body(number, sums):
            offset = builder.mul(number, _I64(width))
            lanes = [_load(builder, builder.gep(table, [builder.add(offset, _I64(n))]), 4) for n in range(width)]
            new = []
            for r, start in enumerate(starts):
                component = _splat(builder, builder.load(builder.gep(start, [number])), _FLOATS)
                new += [_fma(builder, component, lanes[n], sums[r * width + n]) for n in range(width)]
            return new

        sums = _loop(builder, dim_, initial, body)
        _keep_best(context, builder, types_[8], best_, lane_, sums, width)
        return context.get_dummy_value()

    i = types.int64
    return types.void(registers, rows, i, i, i, queries, i, bias, best, i), generate


@intrinsic(prefer_literal=True)
def _code_block(typing, registers, codes, row, last, dim, queries, first, correction, scales, units, bias, best, lane):
    """best[lane:] = max over the block's rows of bias + scale x unit x (row · query), for 8 x registers query vectors.

    Codes are bytes 1..255 about 128. A 32-bit lane holds two 16-bit sums, each over every other pair of components;
    `correction` takes the 128 off again. Sums may wrap on the way: the caller sees to it that the ends fit.
    """
    if not isinstance(registers, types.IntegerLiteral):
        return None
    width = registers.literal_value

    def generate(context, builder, signature, arguments):
        _, codes_, row_, last_, dim_, queries_, first_, correction_, scales_, units_, bias_, best_, lane_ = arguments
        types_ = signature.args
        numbers = _clamped(builder, row_, last_, _CODE_ROWS[width])
        starts = [_at(context, builder, types_[1], codes_, builder.mul(n, dim_), _I32) for n in numbers]
        table = _at(context, builder, types_[5], queries_, first_, _BYTES)
        offsets = _at(context, builder, types_[7], correction_, builder.mul(lane_, _I64(2)), _SHORTS)
        corrections = [_load(builder, builder.gep(offsets, [_I64(n)]), 2) for n in range(width)]

        def body(number, sums):
            offset = builder.mul(number, _I64(width))
            lanes = [_load(builder, builder.gep(table, [builder.add(offset, _I64(n))]), 1) for n in range(width)]
            new = []
            for r, start in enumerate(starts):
                four = _load(builder, builder.gep(start, [number]), 1)
                components = builder.bitcast(_splat(builder, four, _INTS), _BYTES)
                for n in range(width):
                    pairs = _call(builder, "llvm.x86.avx2.pmadd.ub.sw", _SHORTS, components, lanes[n])
                    new.append(builder.add(sums[r * width + n], pairs))
            return new

        sums = _loop(builder, builder.sdiv(dim_, _I64(4)), corrections * len(numbers), body)
        ones = ir.Constant(_SHORTS, [1] * 2 * LANES)
        units_at = _at(context, builder, types_[9], units_, lane_, _FLOATS)
        units = [_load(builder, builder.gep(units_at, [_I64(n)]), 4) for n in range(width)]
        found = []
        for r, n in enumerate(numbers):
            scale = _splat(builder, builder.load(_at(context, builder, types_[8], scales_, n, _F32)), _FLOATS)
            add = _splat(builder, builder.load(_at(context, builder, types_[10], bias_, n, _F32)), _FLOATS)
            for unit, halves in zip(units, sums[r * width : (r + 1) * width]):
                whole = _call(builder, "llvm.x86.avx2.pmadd.wd", _INTS, halves, ones)
                product = builder.fmul(builder.sitofp(whole, _FLOATS), unit)
                found.append(_fma(builder, product, scale, add))
        _keep_best(context, builder, types_[11], best_, lane_, found, width)
        return context.get_dummy_value()

    i = types.int64
    return types.void(registers, codes, i, i, i, queries, i, correction, scales, units, bias, best, i), generate


@compiled(error_model="numpy")
def _float_blocks(rows, count, dim, blocks, queries, bias, best):
    # Apart from its caller, which is compiled for each dtype of the values.
    lane = 0
    for registers in blocks:
        table = lane * dim
        if registers == 1:
            for r in range(0, count, 12):
                _float_block(1, rows, r, count - 1, dim, queries, table, bias, best, lane)
        elif registers == 2:
            for r in range(0, count, 6):
                _float_block(2, rows, r, count - 1, dim, queries, table, bias, best, lane)
        else:
            for r in range(0, count, 4):
                _float_block(3, rows, r, count - 1, dim, queries, table, bias, best, lane)
        lane += registers * LANES


@compiled(error_model="numpy")
def best_of_floats(values, dim, starts, lengths, blocks, queries, bounds, l2, sums, first, last):
    """Fill sums[:, first:last]: for each query the sum over its vectors of the best q·d, less |d|²/2 where `l2`.

    `values` [T x dim] are the rows end to end; document i is `lengths[i]` rows from row `starts[i]`. `blocks` holds the
    registers of each block of query vectors, `queries` these, a block after another, each [dim, 8 x registers].
    Query b has the lanes bounds[b]:bounds[b + 1]. Documents without rows are left as they are.
    """
    rows = np.empty(_TILE * dim, np.float32)
    bias = np.zeros(_TILE, np.float32)
    best = np.empty(blocks.sum() * LANES, np.float32)
    for document in range(first, last):
        if lengths[document] == 0:
            continue
        best[:] = -np.inf
        for done in range(0, lengths[document], _TILE):
            count = min(_TILE, lengths[document] - done)
            for r in range(count):
                _widen_row(values, (starts[document] + done + r) * dim, rows, r * dim, dim)
                if l2:
                    bias[r] = _squared_norm(rows, r * dim, dim) * np.float32(-0.5)
            _float_blocks(rows, count, dim, blocks, queries, bias, best)
        _sum_lanes(best, bounds, sums, document)


@compiled(error_model="numpy")
def best_of_codes(
    codes, dim, starts, lengths, blocks, queries, correction, bounds, scales, units, bias, sums, first, last
):
    """As `best_of_floats`, of codes: row t of [T x dim] stands for scales[t] x (codes[t] - 128) and adds bias[t].

    `queries` are whole numbers of the `units` of their lanes; `correction` holds -128 times their sums by halves.
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
                for r in range(starts[document], end, 6):
                    _code_block(1, codes, r, end - 1, dim, queries, table, correction, scales, units, bias, best, lane)
            elif registers == 2:
                for r in range(starts[document], end, 4):
                    _code_block(2, codes, r, end - 1, dim, queries, table, correction, scales, units, bias, best, lane)
            else:
                for r in range(starts[document], end, 3):
                    _code_block(3, codes, r, end - 1, dim, queries, table, correction, scales, units, bias, best, lane)
            lane += registers * LANES
        _sum_lanes(best, bounds, sums, document)


@compiled(error_model="numpy")
def _sum_lanes(best, bounds, sums, document):
    for query in range(len(bounds) - 1):
        total = 0.0
        for lane in range(bounds[query], bounds[query + 1]):
            total += best[lane]
        sums[query, document] = total
