"""The colour map of the PASCAL VOC development kit, also used for label sets without colours of their own."""

from __future__ import annotations

Colour = tuple[int, int, int]


def voc_colours(count: int) -> tuple[Colour, ...]:
    """RGB of label values 0 .. count - 1: three bits of the value at a time, to red, green, blue, high bits first.

    Everingham et al., The PASCAL Visual Object Classes Challenge 2012, development kit.
    """
    return tuple((_channel(value, 0), _channel(value, 1), _channel(value, 2)) for value in range(count))


def _channel(value: int, bit: int) -> int:
    return sum(((value >> (3 * place + bit)) & 1) << (7 - place) for place in range(8))
