"""What prompt evaluation costs, learnt from what it did cost."""


class PrefillCost:
    """Seconds per prompt token by depth.

    Attention makes a token dearer the more cells lie before it, so the rate is kept per power of two of the depth. An
    unseen depth takes the rate of the nearest shallower one.
    """

    _SMOOTHING = 0.3  # weight of the newest measurement

    def __init__(self, initial: float = 1e-3) -> None:
        self._rates: dict[int, float] = {}
        self._initial = initial  # seconds per token before anything was measured: on the slow side

    def observe(self, tokens: int, depth: int, seconds: float) -> None:
        """Take the cost of a piece of `tokens` that was evaluated behind `depth` cells."""
        bucket = _bucket(depth + tokens)
        rate = seconds / tokens
        known = self._rates.get(bucket)
        self._rates[bucket] = rate if known is None else known + self._SMOOTHING * (rate - known)

    def seconds(self, tokens: int, depth: int) -> float:
        """The expected cost of a piece."""
        return tokens * self._rate(depth + tokens)

    def tokens(self, seconds: float, depth: int) -> int:
        """How many tokens behind `depth` cells fit into a time."""
        return int(seconds / self._rate(depth))

    def _rate(self, depth: int) -> float:
        for bucket in range(_bucket(depth), -1, -1):
            if (rate := self._rates.get(bucket)) is not None:
                return rate
        return min(self._rates.values(), default=self._initial)


def _bucket(depth: int) -> int:
    return max(depth, 1).bit_length()
