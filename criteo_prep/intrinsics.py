"""Five machine instructions that numba has no name for; they make the hot loops of parsing and encoding fast.

Indices are not checked here; the calling loops guarantee them.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_WORD = ir.IntType(64)


def _address(context, builder, array_type, array, index):
    """Pointer to array[index] of a contiguous array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def load_word(typing_context, text, position):
    """The 8 bytes text[position : position + 8] as uint64, the first byte lowest. text: uint8 [bytes]."""

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        word = builder.load(builder.bitcast(pointer, _WORD.as_pointer()))
        word.align = 1
        return word

    return types.uint64(text, types.int64), generate


@intrinsic
def bytes_equal(typing_context, text, position, byte):
    """uint64, bit i: whether text[position + i] is `byte`, for i below 64. text: uint8 [bytes]; byte: uint8."""

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        vector = ir.VectorType(ir.IntType(8), 64)
        characters = builder.load(builder.bitcast(pointer, vector.as_pointer()))
        characters.align = 1
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[2], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
        wanted = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes)
        return builder.bitcast(builder.icmp_unsigned("==", characters, wanted), _WORD)

    return types.uint64(text, types.int64, types.uint8), generate


@intrinsic
def trailing_zeros(typing_context, word):
    """Number of zero bits below the lowest set bit of a uint64; 64 for 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def count_ones(typing_context, word):
    """Number of set bits of a uint64."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def prefetch(typing_context, array, index):
    """Asks for the cache line of array[index], so that a later access does not wait for memory."""

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, signature.args[0], arguments[0], arguments[1])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        signature_ = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], signature_)
        read, high_locality, data = ir.Constant(number, 0), ir.Constant(number, 3), ir.Constant(number, 1)
        builder.call(function, [builder.bitcast(pointer, byte), read, high_locality, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
