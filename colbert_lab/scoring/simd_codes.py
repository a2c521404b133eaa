"""The vector operations of 8-bit products; they need AVX2.

A row is scale x (codes - 128); codes are bytes 1..255. Query vectors are lanes, as in simd.py, but hold whole numbers,
four components together, whose products one instruction adds to the 32-bit lane where there is one (vpdpbusd). Else
(vpmaddubsw) a lane holds two 16-bit sums, each over every other pair of components, which are added up in 32 bits
halfway and at the end: four sums in all, over the quarters of a vector. `correction` takes the 128 off again. 16-bit
sums may wrap on the way: where they are used (not llvm.WIDE) the caller sees to it that the ends fit.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from colbert_lab.scoring.llvm import (
    BYTES,
    F32,
    FLOATS,
    I8,
    I32,
    I64,
    INTS,
    LANES,
    PART,
    PART_FLOATS,
    PART_INTS,
    SHORTS,
    WIDE,
    added_up,
    at,
    call,
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
ROWS_1, ROWS_2, ROWS_3 = (12, 8, 6) if WIDE else (6, 4, 3)
_ROWS = {1: ROWS_1, 2: ROWS_2, 3: ROWS_3}


def half_of(builder, dim):
    """Eights of components before the middle of d, a multiple of 8: where 16-bit sums are begun anew."""
    return builder.sdiv(builder.add(builder.sdiv(dim, I64(PART)), I64(1)), I64(2))


def _estimates(context, builder, types_, width, codes, row, last, dim, queries, first, tables, lane):
    """The numbers of a block's rows, and their estimates, `width` vectors a row.

    `types_` and `tables` hold what comes after `first` in the intrinsics' arguments: corrections, scales, units, bias.
    """
    codes_type, queries_type, (correction_type, scales_type, units_type, bias_type) = types_
    correction, scales, units, bias = tables
    numbers = clamped_rows(builder, row, last, _ROWS[width])
    starts = [at(context, builder, codes_type, codes, builder.mul(n, dim), I32) for n in numbers]
    table = at(context, builder, queries_type, queries, first, BYTES)

    def multiplied(number, sums, add):
        """The sums with the products of four components more: add(sum, components, query numbers)."""
        offset = builder.mul(number, I64(width))
        lanes = [load(builder, builder.gep(table, [builder.add(offset, I64(n))]), 1) for n in range(width)]
        new = []
        for r, start in enumerate(starts):
            four = load(builder, builder.gep(start, [number]), 1)
            components = builder.bitcast(splat(builder, four, INTS), BYTES)
            new += [add(sums[r * width + n], components, lanes[n]) for n in range(width)]
        return new

    # Blocks are read row beside row, which the CPU does not foresee; two blocks ahead is early enough.
    ahead = builder.mul(dim, I64(2 * len(numbers)))
    later = builder.gep(builder.bitcast(starts[0], I8.as_pointer()), [ahead])
    fetch(builder, later, builder.mul(dim, I64(len(numbers))))
    corrections = correction_type, correction, lane
    summed = _summed_in_32_bits if WIDE else _summed_in_quarters
    wholes = summed(context, builder, corrections, width, len(numbers), dim, multiplied)
    units_at = at(context, builder, units_type, units, lane, FLOATS)
    unit = [load(builder, builder.gep(units_at, [I64(n)]), 4) for n in range(width)]
    found = []
    for r, n in enumerate(numbers):
        scale = splat(builder, builder.load(at(context, builder, scales_type, scales, n, F32)), FLOATS)
        add = splat(builder, builder.load(at(context, builder, bias_type, bias, n, F32)), FLOATS)
        for one, whole in zip(unit, wholes[r * width : (r + 1) * width]):
            product = builder.fmul(builder.sitofp(whole, FLOATS), one)
            found.append(fma(builder, product, scale, add))
    return numbers, found


def _summed_in_32_bits(context, builder, corrections, width, rows, dim, multiplied):
    """Whole dot products, `width` vectors a row; a lane's correction is an int32."""
    correction_type, correction, lane = corrections
    offsets = at(context, builder, correction_type, correction, lane, INTS)

    def add(total, components, lanes):
        components, lanes = (builder.bitcast(part, INTS) for part in (components, lanes))
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, total, components, lanes)

    initial = [load(builder, builder.gep(offsets, [I64(n)]), 4) for n in range(width)] * rows
    return loop(builder, builder.sdiv(dim, I64(4)), initial, lambda number, sums: multiplied(number, sums, add))


def _summed_in_quarters(context, builder, corrections, width, rows, dim, multiplied):
    """As `_summed_in_32_bits`; a lane has four corrections of 16 bits, a register's first two before its last two."""
    correction_type, correction, lane = corrections
    offsets = at(context, builder, correction_type, correction, builder.mul(lane, I64(4)), SHORTS)

    def add(total, components, lanes):
        return builder.add(total, call(builder, "llvm.x86.avx2.pmadd.ub.sw", SHORTS, components, lanes))

    def products(part, begin):
        initial = [load(builder, builder.gep(offsets, [I64(2 * n + part)]), 2) for n in range(width)] * rows
        return lambda number, sums: multiplied(builder.add(number, begin), sums, add), initial

    ones = ir.Constant(SHORTS, [1] * 2 * LANES)
    begin, steps = I64(0), half_of(builder, dim)
    wholes = [ir.Constant(INTS, [0] * LANES)] * (rows * width)
    for part in range(2):
        body, initial = products(part, builder.mul(begin, I64(2)))
        sums = loop(builder, builder.mul(steps, I64(2)), initial, body)
        added = [call(builder, "llvm.x86.avx2.pmadd.wd", INTS, both, ones) for both in sums]
        wholes = [builder.add(whole, more) for whole, more in zip(wholes, added)]
        begin, steps = steps, builder.sub(builder.sdiv(dim, I64(PART)), steps)
    return wholes


@intrinsic(prefer_literal=True)
def code_block(typing, registers, codes, row, last, dim, queries, first, correction, scales, units, bias, best, lane):
    """best[lane:] = max over the block's rows of bias + scale x unit x (row · query), for LANES x registers lanes."""
    if not isinstance(registers, types.IntegerLiteral):
        return None
    width = registers.literal_value

    def generate(context, builder, signature, arguments):
        _, codes_, row_, last_, dim_, queries_, first_, *tables, best_, lane_ = arguments
        kinds = signature.args[1], signature.args[5], signature.args[7:11]
        _, found = _estimates(
            context, builder, kinds, width, codes_, row_, last_, dim_, queries_, first_, tables, lane_
        )
        keep_best(context, builder, signature.args[11], best_, lane_, found, width)
        return context.get_dummy_value()

    i = types.int64
    return types.void(registers, codes, i, i, i, queries, i, correction, scales, units, bias, best, i), generate


@intrinsic(prefer_literal=True)
def code_products(
    typing, registers, codes, row, last, dim, queries, first, correction, scales, units, bias, best, lane, out, origin
):
    """As `code_block`, and out[LANES x registers x (row - origin):] = the estimates themselves, row by row."""
    if not isinstance(registers, types.IntegerLiteral):
        return None
    width = registers.literal_value

    def generate(context, builder, signature, arguments):
        _, codes_, row_, last_, dim_, queries_, first_, *tables, best_, lane_, out_, origin_ = arguments
        kinds = signature.args[1], signature.args[5], signature.args[7:11]
        numbers, found = _estimates(
            context, builder, kinds, width, codes_, row_, last_, dim_, queries_, first_, tables, lane_
        )
        for r, n in enumerate(numbers):
            place = builder.mul(builder.sub(n, origin_), I64(width * LANES))
            target = at(context, builder, signature.args[13], out_, place, FLOATS)
            for lanes in range(width):
                store(builder, found[r * width + lanes], builder.gep(target, [I64(lanes)]), 4)
        keep_best(context, builder, signature.args[11], best_, lane_, found, width)
        return context.get_dummy_value()

    i = types.int64
    return (
        types.void(registers, codes, i, i, i, queries, i, correction, scales, units, bias, best, i, out, i),
        generate,
    )


@intrinsic(prefer_literal=True)
def lanes_reaching(typing, registers, estimates, position, floor, lane):
    """Bits, as uint64, of the LANES x registers lanes where estimates[position:] are not below floor[lane:]."""
    if not isinstance(registers, types.IntegerLiteral):
        return None
    width = registers.literal_value

    def generate(context, builder, signature, arguments):
        _, estimates_, position_, floor_, lane_ = arguments
        found = at(context, builder, signature.args[1], estimates_, position_, FLOATS)
        bound = at(context, builder, signature.args[3], floor_, lane_, FLOATS)
        bits = I64(0)
        for n in range(width):
            one, other = (load(builder, builder.gep(p, [I64(n)]), 4) for p in (found, bound))
            # Unordered: what is no number is not below anything.
            reached = builder.bitcast(builder.fcmp_unordered(">=", one, other), ir.IntType(LANES))
            bits = builder.or_(bits, builder.shl(builder.zext(reached, I64), I64(n * LANES)))
        return bits

    return types.uint64(registers, estimates, types.int64, floor, types.int64), generate


@intrinsic
def lowest_bit(typing, bits):
    """The number of the lowest bit that is set in a uint32 or uint64; of its bits where none is."""

    def generate(context, builder, signature, arguments):
        number = builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return number if number.type == I64 else builder.zext(number, I64)

    return types.int64(types.uint64 if bits == types.uint64 else types.uint32), generate


@intrinsic
def peak_of(typing, row, dim):
    """The largest |value| of row[:dim], fp32; a value that is no number does not count."""

    def generate(context, builder, signature, arguments):
        row_, dim_ = arguments

        def body(number, peaks):
            offset = builder.mul(number, I64(PART))
            x = load(builder, at(context, builder, signature.args[0], row_, offset, PART_FLOATS), 4)
            size = call(builder, f"llvm.fabs.v{PART}f32", PART_FLOATS, x)
            return [builder.select(builder.fcmp_ordered(">", size, peaks[0]), size, peaks[0])]

        (peaks,) = loop(builder, builder.sdiv(dim_, I64(PART)), [ir.Constant(PART_FLOATS, [0.0] * PART)], body)
        largest = builder.extract_element(peaks, I32(0))
        for lane in range(1, PART):
            value = builder.extract_element(peaks, I32(lane))
            largest = builder.select(builder.fcmp_ordered(">", value, largest), value, largest)
        return largest

    return types.float32(row, types.int64), generate


@intrinsic
def code_row(typing, row, dim, scale, codes, position, facts):
    """codes[position : position + dim] = 128 + row / scale, rounded, within 1..255, for row[:dim] fp32.

    facts[0] is the squared length of row - scale x (codes - 128); facts[1:5] are those of the quarters of codes - 128
    that the products sum apart: components 0, 1, 4, 5, ... and 2, 3, 6, 7, ... before the middle, and behind it.
    """

    def generate(context, builder, signature, arguments):
        row_, dim_, scale_, codes_, position_, facts_ = arguments
        step = splat(builder, scale_, PART_FLOATS)
        inverse = splat(builder, builder.fdiv(F32(1.0), scale_), PART_FLOATS)
        minus = builder.fsub(ir.Constant(PART_FLOATS, [0.0] * PART), step)
        low, high = (ir.Constant(PART_FLOATS, [end] * PART) for end in (-127.0, 127.0))
        middle = ir.Constant(PART_INTS, [128] * PART)

        def body_from(begin):
            def body(number, sums):
                errors, squares = sums
                offset = builder.mul(builder.add(number, begin), I64(PART))
                x = load(builder, at(context, builder, signature.args[0], row_, offset, PART_FLOATS), 4)
                whole = call(builder, f"llvm.rint.v{PART}f32", PART_FLOATS, builder.fmul(x, inverse))
                # Ordered: what is no number becomes one, and its error none.
                whole = builder.select(builder.fcmp_ordered("<", whole, high), whole, high)
                whole = builder.select(builder.fcmp_ordered(">", whole, low), whole, low)
                bytes_ = builder.trunc(builder.add(builder.fptosi(whole, PART_INTS), middle), ir.VectorType(I8, PART))
                target = at(context, builder, signature.args[3], codes_, builder.add(position_, offset), bytes_.type)
                store(builder, bytes_, target, 1)
                error = fma(builder, whole, minus, x)
                return [fma(builder, error, error, errors), fma(builder, whole, whole, squares)]

            return body

        def keep(place, value):
            builder.store(value, at(context, builder, signature.args[5], facts_, I64(place), F32))

        nothing = ir.Constant(PART_FLOATS, [0.0] * PART)
        errors, begin, steps = nothing, I64(0), half_of(builder, dim_)
        for part in range(2):
            errors, squares = loop(builder, steps, [errors, nothing], body_from(begin))
            for half, lanes in enumerate([(0, 1, 4, 5), (2, 3, 6, 7)]):
                keep(1 + 2 * part + half, added_up(builder, squares, lanes))
            begin, steps = steps, builder.sub(builder.sdiv(dim_, I64(PART)), steps)
        keep(0, added_up(builder, errors, range(PART)))
        return context.get_dummy_value()

    return types.void(row, types.int64, types.float32, codes, types.int64, facts), generate
