"""Drafts: text that repeats is proposed from where it occurred before, and what is proposed is taken where it pays.

A step may evaluate, behind a sequence's last token, a draft of tokens that are only guessed. The token at each position
is sampled from that position's own logits and with its own random number, and the draft is accepted for as long as it
equals what was sampled. Logits behind accepted tokens are the true ones, so the tokens taken, greedy or sampled, are those
that would have come without a draft; a draft only changes how many of them a step yields (and, in the last bits, the
arithmetic of a backend that computes larger batches in another order).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST, _SHORTEST = 4, 2  # tokens of the n-grams that are looked up
_TOKEN_BITS = 32


def accept(draft: Sequence[int], sampled: Sequence[object]) -> int:
    """How many tokens of a draft stand.

    sampled: what was chosen behind the sequence's last token and behind each of the draft's, one more than `draft` has.
    The step yields sampled[: accepted + 1].
    """
    accepted = 0
    for guess, token in zip(draft, sampled, strict=False):
        if guess != token:
            break
        accepted += 1
    return accepted


class PromptLookup:
    """Finds where a sequence's last tokens occurred before.

    It follows a list that its owner appends to and never shortens, and costs a few dictionary entries per token.
    """

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._after: dict[int, int] = {}  # by n-gram, where its latest occurrence that has a continuation continues
        self._indexed = 1  # tokens[i] for i < _indexed have been noted as continuations

    def propose(self, most: int) -> list[int]:
        """At most `most` tokens that followed the latest earlier occurrence of the last ones; the longest n-gram counts.

        If that occurrence is so near that its continuation runs into the end, it goes on in circles.
        """
        tokens, after = self._tokens, self._after
        for position in range(self._indexed, len(tokens)):
            for key in _keys(tokens, position):
                after[key] = position
        self._indexed = max(len(tokens), 1)
        start = None
        for key in _keys(tokens, len(tokens)):
            start = after.get(key, start)
        if start is None or most < 1:
            return []
        draft = tokens[start : start + most]
        period = len(draft)
        while len(draft) < most:
            draft.append(draft[len(draft) - period])
        return draft


def _keys(tokens: Sequence[int], end: int) -> list[int]:
    """The n-grams that end before `end`, shortest first, each as one number."""
    keys = []
    key = 0
    for length in range(1, min(_LONGEST, end) + 1):
        key |= (tokens[end - length] + 1) << _TOKEN_BITS * (length - 1)
        if length >= _SHORTEST:
            keys.append(key)
    return keys


@dataclass(slots=True)
class Acceptance:
    """How well the drafts of one sequence did; newer ones count more."""

    accepted: float = 1.0  # faded counts, which begin with as many of either
    rejected: float = 1.0
    failures: int = 0  # drafts in a row of which nothing was accepted
    pause: int = 0  # steps until the next draft
    forgiven: int = 0  # failures in a row that say nothing yet

    _FADING = 0.8  # of what a draft counts, with each draft after it
    _LONGEST_PAUSE = 64  # steps

    @property
    def rate(self) -> float:
        """The expected share of draft tokens accepted, of those whose forerunners were."""
        return self.accepted / (self.accepted + self.rejected)

    @property
    def doubts(self) -> int:
        """Failures in a row that count."""
        return max(self.failures - self.forgiven, 0)

    def observe(self, drafted: int, accepted: int) -> None:
        """Take the fate of a draft; one that failed altogether suspends the next ones, twice as long each time."""
        self.accepted = self.accepted * self._FADING + accepted
        self.rejected = self.rejected * self._FADING + (accepted < drafted)
        self.failures = 0 if accepted else self.failures + 1
        self.pause = min((1 << min(self.doubts, 10)) - 1, self._LONGEST_PAUSE)


class Rehearsal:
    """A draft that is not evaluated: what comes shows whether it would have stood, and that costs nothing."""

    def __init__(self) -> None:
        self._draft: list[int] = []
        self._start = 0

    @property
    def under_way(self) -> bool:
        """Whether there is one."""
        return bool(self._draft)

    def begin(self, start: int, draft: list[int]) -> None:
        """Compare `draft` with what comes as `tokens[start:]`."""
        self._start, self._draft = start, draft

    def drop(self) -> None:
        """Forget it."""
        self._draft = []

    def judge(self, tokens: Sequence[int], acceptance: Acceptance) -> None:
        """Tell `acceptance` how it went, as soon as that is clear."""
        come = tokens[self._start : self._start + len(self._draft)]
        accepted = accept(self._draft, come)
        if self._draft and (accepted < len(come) or accepted == len(self._draft)):
            acceptance.observe(len(self._draft), accepted)
            self._draft = []


class BatchCost:
    """Seconds of a decode batch by its number of tokens, learnt from what batches took."""

    _SMOOTHING = 0.2  # weight of the newest measurement
    _OUTLIER = 2.0  # a measurement counts as at most so many times what was expected: somebody else had the processor
    _UNSEEN = 0.25  # a further token's share of a token's cost in the largest batch seen; hopeful, so that it is tried

    def __init__(self) -> None:
        self._sizes: list[int] = []  # ascending
        self._points: dict[int, tuple[float, float]] = {}  # by rounded size: mean tokens and mean seconds

    def observe(self, tokens: int, seconds: float) -> None:
        """Take what a batch took."""
        size = _rounded(tokens)
        if size not in self._points:
            self._sizes.insert(bisect_left(self._sizes, size), size)
            self._points[size] = (float(tokens), seconds)
            return
        mean_tokens, mean_seconds = self._points[size]
        seconds = min(seconds, self._OUTLIER * mean_seconds)
        self._points[size] = (
            mean_tokens + self._SMOOTHING * (tokens - mean_tokens),
            mean_seconds + self._SMOOTHING * (seconds - mean_seconds),
        )

    def seconds(self, tokens: int) -> float:
        """The expected cost of a batch; 0 before anything was measured."""
        if not self._sizes:
            return 0.0
        index = bisect_left(self._sizes, _rounded(tokens))
        if index < len(self._sizes) and self._points[self._sizes[index]][0] < tokens:
            index += 1  # the mean of a rounded size may lie on either side
        if index == len(self._sizes):
            size, seconds = self._points[self._sizes[-1]]
            return seconds * (1 + self._UNSEEN * (tokens - size) / size)
        upper = self._points[self._sizes[index]]
        if index == 0:
            return upper[1]
        lower = self._points[self._sizes[index - 1]]
        share = min(max((tokens - lower[0]) / max(upper[0] - lower[0], 1e-9), 0.0), 1.0)
        return lower[1] + share * (upper[1] - lower[1])


def _rounded(tokens: int) -> int:
    """The size under which a batch is remembered: exact up to 16 tokens, then to an eighth or so."""
    step = 1 << max(tokens.bit_length() - 4, 0) if tokens > 16 else 1
    return tokens // step * step


class DraftPolicy:
    """Decides how many draft tokens each sequence may add to a step, so that tokens per second are the most."""

    _LEAST_GAIN = 0.05  # expected tokens; what is less likely is not worth the arithmetic
    _LIKELY = 0.3  # expected tokens; so likely must be what is tried though it did not seem to pay
    _TRIED = 7  # tokens, with which a sequence alone makes a batch of eight
    _PATIENCE = (
        16,
        512,
    )  # steps in which drafts did not seem to pay, until one is tried all the same: first, and at last

    def __init__(self, cost: BatchCost | None = None) -> None:
        """cost: of batches, where somebody else learns it."""
        self._cost = cost or BatchCost()
        self._idle = 0
        self._patience = self._PATIENCE[0]

    def observe_cost(self, tokens: int, seconds: float) -> None:
        """Take what a decode batch of so many tokens took, drafts included, with everything that a token costs."""
        self._cost.observe(tokens, seconds)

    def allot(
        self,
        sequences: Sequence[Acceptance],
        proposed: Sequence[int],
        most: int,
        *,
        beside: int = 0,
        seconds: Sequence[float] | None = None,
    ) -> list[int]:
        """How many tokens of its proposal each sequence may have evaluated; to be called once a step.

        sequences: all that decode in this step; proposed: the lengths of their proposals, which need not be made while a
        sequence pauses; most: draft tokens to be added to the batch, not negative; beside: those that are in it already;
        seconds: what a token costs to propose, by sequence. Counts the pauses down.

        A draft token is worth the probability that it and all before it are accepted. The likeliest ones are added to the
        batch, in this order, up to the number that gives the most expected tokens per expected second.
        """
        allotted = [0] * len(sequences)
        gains: list[tuple[float, int]] = []
        probes = 0
        for index, (sequence, length) in enumerate(zip(sequences, proposed, strict=True)):
            if sequence.pause > 0:
                sequence.pause -= 1
            elif sequence.doubts and length:
                if probes < most:
                    allotted[index] = 1  # the first draft after a pause is one token, however unlikely
                    probes += 1
            elif length:
                rate = gain = sequence.rate
                for _ in range(length):
                    if gain < self._LEAST_GAIN:
                        break
                    gains.append((gain, index))
                    gain *= rate
        gains.sort(key=lambda pair: -pair[0])
        candidates = [(gain, seconds[index] if seconds else 0.0) for gain, index in gains[: most - probes]]
        for _, index in gains[: self._best(candidates, len(sequences) + beside + probes)]:
            allotted[index] += 1
        return allotted

    def _best(self, gains: Sequence[tuple[float, float]], tokens: int) -> int:
        """How many of the gains are worth adding to a batch of `tokens`.

        gains: of each token, falling, and the seconds that it costs to propose.
        """
        if not gains:
            return 0
        expected, best, count = float(tokens), tokens / max(self._cost.seconds(tokens), 1e-9), 0
        proposing = 0.0
        for number, (gain, seconds) in enumerate(gains, start=1):
            expected += gain
            proposing += seconds
            rate = expected / max(self._cost.seconds(tokens + number) + proposing, 1e-9)
            if rate > best:
                best, count = rate, number
        if count:
            self._idle, self._patience = 0, self._PATIENCE[0]
            return count
        self._idle += 1
        if self._idle < self._patience:
            return 0
        # Costs change with the depth and with neighbours, and only a batch with a draft shows what it costs now.
        likely = min(sum(gain >= self._LIKELY for gain, _ in gains), self._TRIED)
        if likely:
            self._idle, self._patience = 0, min(2 * self._patience, self._PATIENCE[1])
        return likely
