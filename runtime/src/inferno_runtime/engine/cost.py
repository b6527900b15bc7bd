"""What prompt evaluation costs, learnt from what it did cost, and the piece of a prompt that follows from it."""

LEAST_PIECE = 16  # tokens; a smaller one costs nearly as much
_SIZES = (LEAST_PIECE, 32, 64, 128, 256, 512)  # pieces that are kept apart: kernels prefer some to others by far
_SMOOTHING = 0.3  # weight of the newest measurement
_DOUBT = 0.99  # of a rate is left when another size was measured at its depth: in time it is tried again
_PATIENCE = 2.5  # times the time there is, at most, for a piece
_CRUMB = 1.5  # times the cost of a token in a larger piece
_SAVING = 1.15  # whose tokens are cheaper by so much


class PrefillCost:
    """Seconds per prompt token by depth and size of the piece.

    Attention makes a token dearer the more cells lie before it, and a kernel that computes 64 tokens at a time takes as
    long for 32. So a rate is kept for each size and half-octave of the depth; where there is none, the nearest stands in.
    """

    def __init__(self, initial: float = 1e-3) -> None:
        self._rates: dict[int, dict[int, float]] = {}  # by size, then by depth
        self._initial = initial  # seconds per token before anything was measured: on the slow side

    def observe(self, tokens: int, depth: int, seconds: float) -> None:
        """Take the cost of a piece of `tokens` that was evaluated behind `depth` cells."""
        rates = self._rates.setdefault(_size(tokens), {})
        place = _depth(depth + tokens // 2)
        rate = seconds / tokens
        known = rates.get(place)
        rates[place] = rate if known is None else known + _SMOOTHING * (rate - known)
        for larger in range(_size(tokens) + 1, len(_SIZES)):  # which are never dearer, and were measured longer ago
            rates = self._rates.get(larger, {})
            if place in rates:
                rates[place] = min(rates[place] * _DOUBT, rate)

    def seconds(self, tokens: int, depth: int) -> float:
        """The expected cost of so many tokens of one prompt."""
        return tokens * self._rate(tokens, depth)

    def fitting(self, seconds: float, depth: int) -> int:
        """The largest piece that fits into a time; 0 if none does."""
        for index in range(len(_SIZES) - 1, -1, -1):
            size = _SIZES[index]
            count = int(seconds / self._rate(size, depth))
            if count >= size:
                return count if index == len(_SIZES) - 1 else min(count, _SIZES[index + 1] - 1)
        return 0

    def piece(self, seconds: float, depth: int, pause: float) -> int:
        """How many tokens to evaluate in about that time: what fits, or more where small pieces are wastefully dear.

        pause: seconds that others take after every piece.
        """
        best = max(self.fitting(seconds, depth), LEAST_PIECE)
        for size in (*_SIZES, self.fitting(_PATIENCE * seconds, depth)):
            if size > best and (self.seconds(size, depth) <= _PATIENCE * seconds or self._crumb(best, size, depth)):
                before, after = (self._rate(count, depth) + pause / count for count in (best, size))
                if before >= _SAVING * after:
                    best = size
        return best

    def _crumb(self, count: int, size: int, depth: int) -> bool:
        """Whether a piece is so much dearer by the token than one of this size that it is none, however short the time is."""
        if self.seconds(size, depth) > _PATIENCE * self.seconds(count, depth):
            return False
        return self._rate(count, depth) >= _CRUMB * self._rate(size, depth)

    def _rate(self, tokens: int, depth: int) -> float:
        size, place = _size(tokens), _depth(depth + tokens // 2)
        for at in sorted(self._rates, key=lambda known: (abs(known - size), -known)):
            rates = self._rates[at]
            shallower = [known for known in rates if known <= place]
            return rates[max(shallower)] if shallower else rates[min(rates)]
        return self._initial


def _size(tokens: int) -> int:
    """The index of the size that stands for so many tokens."""
    return sum(tokens >= size for size in _SIZES[1:])


def _depth(depth: int) -> int:
    """A number for a range of depths, half an octave wide beyond the first 512 cells."""
    octave = max(depth, 511).bit_length()
    return octave << 1 | (depth >> octave - 2 & 1 if depth > 511 else 0)
