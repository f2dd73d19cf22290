"""How many terms the matrix products of a compiled XLA program sum up, read from its HLO."""

import re

from vanilla_lstm.learning.backend import tf

_DEFINITION = re.compile(r"%?([\w.-]+) = \(?\w+\[([\d,]*)\]")
_DOT = re.compile(r" dot\(%?([\w.-]+), .*lhs_contracting_dims={([\d,]+)}")
_OTHERS = re.compile(r" (convolution|custom-call|ragged-dot|scaled-dot)\(.*")


def contractions(hlo: str) -> list[int]:
    """Return the length of each contraction; raise `ValueError` if one cannot be determined."""
    if unknown := _OTHERS.search(hlo):
        raise ValueError(f"may add up as its library chooses: {unknown[0].strip()}")
    shapes = dict(_DEFINITION.findall(hlo))
    lengths = []
    for operand, dims in _DOT.findall(hlo):
        shape = [int(n) for n in shapes[operand].split(",")]
        length = 1
        for dim in dims.split(","):
            length *= shape[int(dim)]
        lengths.append(length)
    if len(lengths) != hlo.count(" dot("):
        raise ValueError("a dot is written in another form")
    return lengths


def compiled(function: tf.types.experimental.GenericFunction, *arguments: object) -> str:
    """Return the HLO that XLA compiles `function` to for these arguments."""
    text: str = function.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")
    return text
