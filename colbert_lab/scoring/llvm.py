"""Vector instructions written as LLVM code inside numba's functions: types, and what several intrinsics share."""

from functools import cache

from llvmlite import ir
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features


@cache
def _features() -> frozenset[str]:
    """What numba compiles for: this CPU's features, those that it avoids left out, or what NUMBA_CPU_FEATURES names."""
    named = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return frozenset(name[1:] for name in named.split(",") if name.startswith("+"))


def has_avx2() -> bool:
    """Whether this CPU multiplies 8-bit vectors as simd_codes.py does."""
    return "avx2" in _features()


def widens_half() -> bool:
    """Whether this CPU converts fp16 by an instruction: else LLVM would call a function that may not exist."""
    return not _features().isdisjoint({"f16c", "fullfp16", "neon"})


# Registers of 512 bits, and products of bytes summed in 32 bits (Ice Lake, Zen 4 and later).
WIDE = _features() >= {"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"}
# Query vectors of a register: one instruction multiplies a number with one of each.
LANES = 16 if WIDE else 8
# Query registers of a block; with the document rows of ROWS_1..3 sums, operands and a product fit the CPU's registers.
MAX_REGISTERS = 3
_CACHE_LINE = 64
# Components of a document vector that are read at once: every d of a kernel is a multiple.
PART = 8

F32, I64, I32, I16, I8 = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(16), ir.IntType(8)
FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
SHORTS, BYTES = ir.VectorType(I16, 2 * LANES), ir.VectorType(I8, 4 * LANES)
PART_FLOATS, PART_INTS = ir.VectorType(F32, PART), ir.VectorType(I32, PART)


def at(context, builder, array_type, array, index, element):
    """A pointer to array[index], as a pointer to `element`."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), element.as_pointer())


def load(builder, pointer, align):
    value = builder.load(pointer)
    value.align = align
    return value


def store(builder, value, pointer, align):
    builder.store(value, pointer).align = align


def splat(builder, scalar, vector):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def call(builder, name, result, *arguments):
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def fetch(builder, start, size):
    """Begin to read `size` bytes from start; nothing happens where there is no memory."""
    pointer = builder.bitcast(start, I8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")

    def body(number, _):
        # To read, and to keep: 0 and 3; data, not code: 1.
        line = builder.gep(pointer, [builder.mul(number, I64(_CACHE_LINE))])
        builder.call(prefetch, [line, I32(0), I32(3), I32(1)])
        return []

    lines = builder.sdiv(builder.add(size, I64(_CACHE_LINE - 1)), I64(_CACHE_LINE))
    loop(builder, lines, [], body)


def fma(builder, a, b, c):
    return call(builder, f"llvm.fmuladd.v{a.type.count}f32", a.type, a, b, c)


def added_up(builder, vector, lanes):
    """The sum of these lanes of a vector of floats, in their order."""
    total = builder.extract_element(vector, I32(lanes[0]))
    for lane in lanes[1:]:
        total = builder.fadd(total, builder.extract_element(vector, I32(lane)))
    return total


def loop(builder, steps, initial, body):
    """The values after `steps` rounds of `values = body(number, values)`, kept in registers."""
    before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", steps, I64(0)), loop, after)
    builder.position_at_end(loop)
    number, carried = builder.phi(I64), [builder.phi(value.type) for value in initial]
    values = body(number, carried)
    following = builder.add(number, I64(1))
    for phi, first, value in zip([number, *carried], [I64(0), *initial], [following, *values]):
        phi.add_incoming(first, before)
        phi.add_incoming(value, builder.block)
    end = builder.block
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    results = [builder.phi(value.type) for value in initial]
    for result, first, value in zip(results, initial, values):
        result.add_incoming(first, before)
        result.add_incoming(value, end)
    return results


def clamped_rows(builder, row, last, rows):
    """The numbers of a block's rows. Past the last one it repeats, which changes no maximum."""
    numbers = [builder.add(row, I64(r)) for r in range(rows)]
    return [builder.select(builder.icmp_signed("<", n, last), n, last) for n in numbers]


def keep_best(context, builder, best_type, best, lane, found, registers):
    """best = max(best, found) lane by lane; `found` holds `registers` vectors a row."""
    for n in range(registers):
        pointer = at(context, builder, best_type, best, builder.add(lane, I64(n * LANES)), FLOATS)
        kept = load(builder, pointer, 4)
        for value in found[n::registers]:
            kept = builder.select(builder.fcmp_ordered(">", value, kept), value, kept)
        store(builder, kept, pointer, 4)
