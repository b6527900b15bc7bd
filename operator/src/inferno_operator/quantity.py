"""Kubernetes quantities: when two spellings mean the same amount."""

import re
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(r"^([-+]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+))(?:([eE][-+]?[0-9]+)|([KMGTPE]i|[numkMGTPE]))?$")
_SUFFIXES: Final = {
    **{
        suffix: Decimal(1000) ** power
        for suffix, power in zip("numkMGTPE", (-3, -2, -1, 1, 2, 3, 4, 5, 6), strict=True)
    },
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}


def parse(text: str | int | float) -> Decimal | None:
    """The amount, or None if ``text`` is no quantity."""
    match = _QUANTITY.match(str(text))
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIXES.get(suffix, Decimal(1))


def same(one: object, other: object) -> bool:
    """Whether both are quantities, and of the same amount: the API server writes ``1000m`` as ``1``."""
    if not isinstance(one, (str, int, float)) or not isinstance(other, (str, int, float)):
        return False
    amount = parse(one)
    return amount is not None and amount == parse(other)
