"""Amounts of bytes, for people."""

from typing import Final

MIB: Final = 1024 * 1024


def shown(size: float) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit, exponent in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**exponent:
            return f"{size / 2**exponent:.1f} {unit}"
    return f"{size:.0f} B"
