"""The vector operations that numba's loops do not compile to by themselves, as LLVM vectors.

LLVM lowers them to what the processor has (AVX2, AVX-512, NEON, SSE); only `products_with` depends on one.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from colbert_lab.scoring.compiled import compiled as compiled_with
from colbert_lab.scoring.llvm import FLOATS, I32, LANES, WIDE, call, fetch, loop, splat

# Query vectors that a byte vector holds.
BYTES = 32
# Values of a codeword that are copied at once, whatever its width.
WORD = 8
# Centroids whose products are accumulated together.
TILE = 8

_INT = ir.IntType(64)
_BYTE_VECTOR = ir.VectorType(ir.IntType(8), BYTES)
_WORD_VECTOR = ir.VectorType(ir.FloatType(), WORD)


# Sums may be reordered, but infinities and NaNs are what they are.
compiled = compiled_with(fastmath={"nsz", "arcp", "contract", "afn", "reassoc"}, error_model="numpy")


@intrinsic
def max_rows(typingctx, table, codes, start, end, lane, out):
    """out[lane : lane + 32] = the largest of the rows codes[start:end] of table [K, lanes] uint8; 0 without a row."""

    def generate(context, builder, signature, args):
        base, stride = _matrix(context, builder, signature, args, 0)
        numbers = _data(context, builder, signature, args, 1)
        base = builder.gep(base, [args[4]])
        best = cgutils.alloca_once_value(builder, ir.Constant(_BYTE_VECTOR, [0] * BYTES))
        with cgutils.for_range_slice(builder, args[2], args[3], ir.Constant(_INT, 1)) as (j, _):
            code = builder.zext(builder.load(builder.gep(numbers, [j])), _INT)
            row = _load(builder, builder.gep(base, [builder.mul(code, stride)]), _BYTE_VECTOR)
            held = builder.load(best)
            builder.store(builder.select(builder.icmp_unsigned(">", row, held), row, held), best)
        target = builder.gep(_data(context, builder, signature, args, 5), [args[4]])
        _store(builder, builder.load(best), target, _BYTE_VECTOR)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(table, codes, integer, integer, integer, out), generate


@intrinsic
def at_least(typingctx, table, code, lane, thresholds):
    """The bits, as uint32, of lanes lane .. lane + 32 where table[code] (uint8) reaches thresholds."""

    def generate(context, builder, signature, args):
        base, stride = _matrix(context, builder, signature, args, 0)
        row = builder.gep(base, [builder.add(builder.mul(args[1], stride), args[2])])
        bound = builder.gep(_data(context, builder, signature, args, 3), [args[2]])
        reached = builder.icmp_unsigned(">=", _load(builder, row, _BYTE_VECTOR), _load(builder, bound, _BYTE_VECTOR))
        return builder.bitcast(reached, ir.IntType(BYTES))

    return types.uint32(table, types.int64, types.int64, thresholds), generate


@intrinsic
def copy_floats(typingctx, source, at, target, to):
    """target[to : to + 8] = source[at : at + 8], both one-dimensional fp32."""

    def generate(context, builder, signature, args):
        read = builder.gep(_data(context, builder, signature, args, 0), [args[1]])
        write = builder.gep(_data(context, builder, signature, args, 2), [args[3]])
        _store(builder, _load(builder, read, _WORD_VECTOR), write, _WORD_VECTOR)
        return context.get_dummy_value()

    return types.void(source, types.int64, target, types.int64), generate


@intrinsic
def prefetch(typingctx, matrix, row):
    """Begin to read matrix[row], which is needed a little later."""

    def generate(context, builder, signature, args):
        base, stride = _matrix(context, builder, signature, args, 0)
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        width = builder.mul(stride, ir.Constant(_INT, size))
        fetch(builder, builder.gep(base, [builder.mul(args[1], stride)]), width)
        return context.get_dummy_value()

    return types.void(matrix, types.int64), generate


@intrinsic
def copy_bytes(typingctx, source, at, target, to):
    """target[to : to + 8] = source[at : at + 8], both one-dimensional bytes."""

    def generate(context, builder, signature, args):
        read = builder.gep(_data(context, builder, signature, args, 0), [args[1]])
        write = builder.gep(_data(context, builder, signature, args, 2), [args[3]])
        _store(builder, _load(builder, read, _INT), write, _INT)
        return context.get_dummy_value()

    return types.void(source, types.int64, target, types.int64), generate


@intrinsic
def products_with(typingctx, codes, at, centroid, number, out, place):
    """out[place : place + 2] int32 = c·centroids[number] and c·c, for c = codes[at : at + d] - 128; needs AVX2.

    codes are bytes 1..255, centroids [K, d] int8, and d is a multiple of 16.
    """

    def generate(context, builder, signature, args):
        matrix, dim = _matrix(context, builder, signature, args, 2)
        left = builder.gep(_data(context, builder, signature, args, 0), [args[1]])
        right = builder.gep(matrix, [builder.mul(args[3], dim)])
        done, totals = ir.Constant(_INT, 0), [I32(0), I32(0)]
        for width in (64, 16) if WIDE else (16,):
            sums, body = _products_of(builder, left, right, done, width)
            steps = builder.sdiv(builder.sub(dim, done), ir.Constant(_INT, width))
            found = loop(builder, steps, sums, body)
            kind = sums[0].type
            name = f"llvm.vector.reduce.add.v{kind.count}i32"
            totals = [builder.add(total, call(builder, name, I32, part)) for total, part in zip(totals, found)]
            done = builder.mul(steps, ir.Constant(_INT, width))
        to = builder.gep(_data(context, builder, signature, args, 4), [args[5]])
        for n, total in enumerate(totals):
            builder.store(total, builder.gep(to, [ir.Constant(_INT, n)]))
        return context.get_dummy_value()

    return types.void(codes, types.int64, centroid, types.int64, out, types.int64), generate


def _products_of(builder, left, right, done, width):
    """What sums begin with, and the body of a loop that adds `width` components more to both."""
    kind = ir.VectorType(ir.IntType(8), width)

    def parts(number):
        offset = builder.add(done, builder.mul(number, ir.Constant(_INT, width)))
        return (_load(builder, builder.gep(pointer, [offset]), kind) for pointer in (left, right))

    if WIDE:
        ints = ir.VectorType(ir.IntType(32), width // 4)
        name = f"llvm.x86.avx512.vpdpbusd.{8 * width}"
        middle, nothing = ir.Constant(kind, [-128] * width), ir.Constant(kind, [0] * width)

        def body(number, sums):
            raw, centroid = parts(number)
            c = builder.add(raw, middle)
            size = builder.select(builder.icmp_signed("<", c, nothing), builder.sub(nothing, c), c)
            # One factor has no sign: it is given to the other.
            other = builder.select(builder.icmp_signed("<", c, nothing), builder.sub(nothing, centroid), centroid)
            return [
                call(builder, name, ints, total, builder.bitcast(size, ints), builder.bitcast(factor, ints))
                for total, factor in zip(sums, (other, size), strict=True)
            ]

        return [ir.Constant(ints, [0] * (width // 4))] * 2, body

    shorts, ints = ir.VectorType(ir.IntType(16), width), ir.VectorType(ir.IntType(32), width // 2)

    def body(number, sums):
        raw, centroid = parts(number)
        c = builder.sub(builder.zext(raw, shorts), ir.Constant(shorts, [128] * width))
        factors = builder.sext(centroid, shorts), c
        return [
            builder.add(total, call(builder, "llvm.x86.avx2.pmadd.wd", ints, c, factor))
            for total, factor in zip(sums, factors, strict=True)
        ]

    return [ir.Constant(ints, [0] * (width // 2))] * 2, body


@intrinsic(prefer_literal=True)
def add_scores(typingctx, registers, estimates, position, scores, number, lane, factor, best):
    """estimates[position:] = factor x (themselves + scores[number, lane:]), by registers; best[lane:] the most.

    All fp32: estimates and best have one dimension, scores [K, lanes].
    """
    if not isinstance(registers, types.IntegerLiteral):
        return None
    width = registers.literal_value

    def generate(context, builder, signature, args):
        matrix, lanes = _matrix(context, builder, signature, args, 3)
        held = builder.gep(_data(context, builder, signature, args, 1), [args[2]])
        row = builder.gep(matrix, [builder.add(builder.mul(args[4], lanes), args[5])])
        top = builder.gep(_data(context, builder, signature, args, 7), [args[5]])
        scale = splat(builder, args[6], FLOATS)
        for register in range(width):
            here = [builder.gep(pointer, [ir.Constant(_INT, register * LANES)]) for pointer in (held, row, top)]
            estimate, score, most = (_load(builder, pointer, FLOATS) for pointer in here)
            value = builder.fmul(builder.fadd(estimate, score), scale)
            _store(builder, value, here[0], FLOATS)
            _store(builder, builder.select(builder.fcmp_ordered(">", value, most), value, most), here[2], FLOATS)
        return context.get_dummy_value()

    i = types.int64
    return types.void(registers, estimates, i, scores, i, i, types.float32, best), generate


@intrinsic
def product_tile(typingctx, rows, first, columns, block, out):
    """out[first : first + 8, LANES·block : LANES·(block + 1)] = rows[first : first + 8] · columns[block] [d, LANES]."""

    def generate(context, builder, signature, args):
        base, dim = _matrix(context, builder, signature, args, 0)
        width = ir.Constant(_INT, LANES)
        query = builder.gep(
            _data(context, builder, signature, args, 2), [builder.mul(builder.mul(args[3], dim), width)]
        )
        pointers = [
            builder.gep(base, [builder.mul(builder.add(args[1], ir.Constant(_INT, r)), dim)]) for r in range(TILE)
        ]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(FLOATS, [0.0] * LANES)) for _ in range(TILE)]
        with cgutils.for_range_slice(builder, ir.Constant(_INT, 0), dim, ir.Constant(_INT, 1)) as (j, _):
            column = _load(builder, builder.gep(query, [builder.mul(j, width)]), FLOATS)
            for pointer, total in zip(pointers, sums, strict=True):
                one = builder.load(builder.gep(pointer, [j]))
                product = builder.fmul(splat(builder, one, FLOATS), column, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        to, stride = _matrix(context, builder, signature, args, 4)
        for r, total in enumerate(sums):
            row = builder.mul(builder.add(args[1], ir.Constant(_INT, r)), stride)
            _store(
                builder,
                builder.load(total),
                builder.gep(to, [builder.add(row, builder.mul(args[3], width))]),
                FLOATS,
            )
        return context.get_dummy_value()

    return types.void(rows, types.int64, columns, types.int64, out), generate


def _array(context, builder, signature, args, which):
    kind = signature.args[which]
    if kind.layout != "C":
        raise TypeError(f"argument {which} is not contiguous")
    return context.make_array(kind)(context, builder, args[which])


def _data(context, builder, signature, args, which):
    return _array(context, builder, signature, args, which).data


def _matrix(context, builder, signature, args, which):
    """The data of a matrix and its number of columns."""
    array = _array(context, builder, signature, args, which)
    return array.data, cgutils.unpack_tuple(builder, array.shape)[1]


def _load(builder, pointer, vector):
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=1, typ=vector)


def _store(builder, value, pointer, vector):
    builder.store(value, builder.bitcast(pointer, vector.as_pointer()), align=1)
