"""Random numbers without state."""

from functools import lru_cache

DRAW = 0  # streams of numbers that are independent of one another
XTC = 1

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, position: int, stream: int = DRAW) -> float:
    """A number in [0, 1) that depends on nothing but its arguments (the finalizer of SplitMix64, twice)."""
    mixed = _mix(_start(seed, stream) ^ (position * _GOLDEN & _MASK))
    return (mixed >> 11) * 2.0**-53  # as many bits as a float holds: more would round up to 1


@lru_cache(maxsize=4096)
def _start(seed: int, stream: int) -> int:
    return _mix((seed ^ stream * 0xD1342543DE82EF95) & _MASK)


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
