"""How many threads evaluate the model, found out while it serves.

The threads of an evaluation meet at a barrier after every node of the graph, so the slowest sets the pace: when a
neighbour takes one of two cores, two threads are slower than one. Nobody tells us when a neighbour comes or goes; the
step times do. Pure: no clock and no thread, only what the evaluations took.

Costs are compared as multiples of what is *usual* for the same kind and size of batch, so that a mix of sizes is no
obstacle. Steps cost noticeably more than usual, or some time has passed: a few steps are evaluated with another number
of threads. Where these are faster, a few more follow with the number that was, and only when they confirm it (conditions
may have changed meanwhile) the new number stays. Verdicts are majorities of five steps, which is to say medians; one whose
cost differs by more than twice has two votes, since beside a busy neighbour a step may take a second and not ten milliseconds.
"""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Literal

Kind = Literal["decode", "prefill"]

_STEPS = 5  # in a window, and in each half of a trial
_MAJORITY = 3
_PATIENCE = 4 * _STEPS  # steps in a trial, when most are of sizes never seen before,
_PATIENT = 0.5  # or seconds in such steps
_LEARNT = 2  # steps of a size before its cost counts
_SLOW = 1.25  # times the usual cost: something has happened
_DROWNED = 6.0  # times the usual cost, and
_LONG = 0.3  # seconds: one such step is enough, since the next may take as long
_GAIN = 0.93  # of the cost before: worth a change; less of a gain is not told from noise
_LOST = 1.7  # times the cost before: one such step ends a trial that nothing but the clock began
_STALLED = 0.5  # of the cost before: more threads than free cores; nothing else is told so clearly by a step's time
_FREE = 0.5  # cores that nobody used, at least, for a trial of more threads by the clock
_ALONE = 20  # pieces of prompts with no decode between them
_FIRST_WAIT = 2.0  # seconds of evaluation from one trial to the next,
_WAIT = 4.0  # and when several have brought nothing
_SHARE = 0.02  # of the time is lost, at most, to trials that come by the clock,
_LONGEST_WAIT = 30.0  # but after so long there is one in any case


class ThreadGovernor:
    """The number of threads for each kind of batch.

    Decoding waits for memory and prompts for arithmetic, so the two may want different numbers.
    """

    def __init__(self, most: int, initial: int, idle_cores: Callable[[], float] = lambda: inf) -> None:
        """most: the CPU quota; initial: the number to begin with; idle_cores: on average since it was last asked."""
        idle_cores()  # from here on
        self._prompts_alone = 0  # pieces of prompts since the last decode
        self._climbers: dict[Kind, _Climber] = {
            "decode": _Climber(most, initial, idle_cores),
            "prefill": _Climber(most, initial, idle_cores),
        }

    def threads(self, kind: Kind) -> int:
        """With how many threads the next batch of this kind is to be evaluated."""
        return self._climbers[kind].threads

    def settled(self, kind: Kind) -> int:
        """The number that is known to be good, also while another is tried."""
        return self._climbers[kind].settled

    def observe(self, kind: Kind, tokens: int, depth: int, seconds: float, threads: int) -> int:
        """Take what an evaluation cost, and return the number of threads for the next one of this kind.

        tokens: in the batch, at least 1; depth: cells before it, for several sequences their mean; threads: those that
        evaluated it. Another number than was asked for teaches nothing.
        """
        # A piece of a prompt is long, and a trial with it a long gap in the streams beside it: decoding finds out first.
        self._prompts_alone = 0 if kind == "decode" else self._prompts_alone + 1
        self._climbers["prefill"].led = self._prompts_alone < _ALONE
        climber = self._climbers[kind]
        before = climber.settled
        chosen = climber.observe(tokens, depth, seconds, threads)
        if climber.settled != before:  # a neighbour that came or left did so for the other kind too
            for other in self._climbers.values():
                if other is not climber:
                    self._tell(other, climber, up=climber.settled > before)
        return chosen

    @staticmethod
    def _tell(other: "_Climber", climber: "_Climber", *, up: bool) -> None:
        # Beside a neighbour one piece of a prompt may take seconds: it shall not find out for itself. But single tokens
        # wait for memory, and are as fast with fewer threads once something else slows them, where a prompt takes twice as long.
        stalled = climber.alarmed and climber.relief < _STALLED
        if (other.fell and climber.settled > other.settled) if up else (stalled and climber.settled < other.settled):
            other.follow(climber.settled)
        else:
            other.hurry(up=up)


class _Climber:
    """Finds the best number of threads for one kind of batch."""

    def __init__(self, most: int, initial: int, idle_cores: Callable[[], float]) -> None:
        self._idle_cores = idle_cores
        self._rungs = ladder(most, initial)
        self._at = self._rungs.index(initial)
        self.threads = self.settled = initial
        self.led = False  # whether trials come only when another has found something, or a step takes very long
        self.alarmed = False  # whether the settled number was found since steps were slow
        self.relief = 1.0  # what is left of the cost before, with the settled number
        self.fell = initial < most  # whether the settled number is fewer, and nothing that this kind has found
        self._hurried = False
        self._bidden = False  # another kind is faster with more threads: whether cores are idle says nothing now
        self._now = 0.0  # seconds of evaluation so far
        self._usual: dict[int, _Usual] = {}
        self._sizes: set[int] = set()  # of batches, whatever their depth, since the settled number changed
        self._window: deque[tuple[_Usual, float]] = deque(maxlen=_STEPS)  # the latest costs with the settled number
        self._slow = 0  # which of them were slow, a bit each
        self._trial: _Trial | None = None
        self._turn = 0
        self._failures = 0
        # At which time, though nothing happened. What a start beside a neighbour chose may be wrong already.
        self._next_trial = _FIRST_WAIT / 8 if initial < most else _FIRST_WAIT
        self._next_alarm = 0.0  # from which time on slow steps may start one

    def observe(self, tokens: int, depth: int, seconds: float, threads: int) -> int:
        if threads != self.threads or seconds <= 0:
            return self.threads
        self._now += seconds
        key = size_class(tokens, depth)
        cost = seconds / tokens
        usual = self._usual.get(key)
        if usual is None:
            usual = self._usual[key] = _Usual()
        if self._trial is not None:
            self._observe_trial(self._trial, cost / usual.cost if usual.seen >= _LEARNT else None, seconds)
            return self.threads
        if size_class(tokens, 0) not in self._sizes:
            self._sizes.add(size_class(tokens, 0))
            if self._at < len(self._rungs) - 1:  # what was found for others need not hold for these
                self._turn, self._next_trial = 0, min(self._next_trial, self._now + _FIRST_WAIT / 8)
        if usual.learn(cost):
            self._window.append((usual, cost))
            self._slow = (self._slow << 1 | (cost > _SLOW * usual.cost)) & (1 << _STEPS) - 1
            drowned = cost > _DROWNED * usual.cost and seconds > _LONG
            if len(self._window) >= _MAJORITY or drowned:
                slow = not self.led and self._slow.bit_count() >= _MAJORITY
                alarm = self._now >= self._next_alarm and (drowned or slow)
                if alarm or (self._now >= self._next_trial and (self._hurried or not self.led)):
                    self._start(alarm)
        return self.threads

    def hurry(self, *, up: bool) -> None:
        """Try more threads, or fewer, as soon as it can be done."""
        self._hurried = True
        self._bidden = up
        self._next_trial = self._now
        self._failures = 0
        self._turn = 0 if up else -1  # of those around, the last is fewer

    def follow(self, threads: int) -> None:
        """Take the number that another kind has found without a trial, and see later whether another is better."""
        if self._trial is not None:
            self._end_trial(scale=1.0)
        self.fell = threads < self.settled
        self._at = self._rungs.index(threads)
        self.threads = self.settled = threads
        self._usual.clear()  # costs with so many threads are not known
        self._sizes.clear()
        self._window.clear()
        self._slow = self._turn = self._failures = 0
        self._next_trial = self._now + _FIRST_WAIT
        self._hurried = False
        self._idle_cores()  # from here on

    def _start(self, alarm: bool) -> None:
        if alarm:  # a core was taken, or several: fewer and fewer threads
            targets = [max(0, self._at - (1 << power)) for power in range((self._at - 1).bit_length() + 1) if self._at]
        else:  # a rung up or down, or as many threads as there may be, since a neighbour may have left
            top = len(self._rungs) - 1
            around = dict.fromkeys((self._at + 1, top, self._at - 1))
            targets = [at for at in around if 0 <= at <= top and at != self._at]
            targets = targets and [targets[self._turn % len(targets)]]
            self._turn += 1
            bidden, self._bidden = self._bidden, False
            if targets and targets[0] > self._at and not bidden and self._idle_cores() < _FREE:
                # All cores are taken, and beside a neighbour a step with more threads than are left takes seconds.
                self._next_trial = self._now + _FIRST_WAIT
                return
        before = sorted(cost / usual.cost for usual, cost in self._window)
        if alarm:  # the others are from before it happened
            before = before[-1:] if before[-1] > _DROWNED else before[-_MAJORITY:]
        self._trial = _Trial(targets, _median(before), alarm)
        self._next_target(self._trial)

    def _next_target(self, trial: "_Trial") -> None:
        trial.confirming = False
        if trial.targets:
            trial.begin()
            self.threads = self._rungs[trial.targets[0]]
        else:
            self._give_up(trial)

    def _observe_trial(self, trial: "_Trial", relative: float | None, seconds: float) -> None:
        trial.steps += 1
        if relative is not None:
            trial.take(relative, seconds)
        else:
            trial.untold += seconds
        if trial.against >= _MAJORITY or trial.steps >= _PATIENCE or trial.untold > _PATIENT:
            self.threads = self.settled
            trial.targets.pop(0)
            self._next_target(trial)
        elif trial.pro >= _MAJORITY:
            if not trial.confirming:
                trial.confirm()
                self.threads = self.settled
            if trial.pro or trial.after < trial.before / 4:  # confirmed, or too much for a coincidence
                self._settle(trial)

    def _settle(self, trial: "_Trial") -> None:
        self._at = trial.targets[0]
        self.alarmed, self.relief, self.fell = trial.alarm, trial.after / trial.before, False
        self._sizes.clear()
        self.threads = self.settled = self._rungs[self._at]
        self._idle_cores()  # from here on
        self._end_trial(scale=trial.after)
        self._failures = self._turn = 0
        self._next_trial = self._now + _FIRST_WAIT / 8  # where this is better, the next rung may be better still
        self._next_alarm = self._now
        self._hurried = True

    def _give_up(self, trial: "_Trial") -> None:
        # Slow steps that no other number makes faster are what is usual now.
        self._end_trial(scale=trial.before if trial.alarm else 1.0)
        self.threads = self.settled
        self._hurried = False
        if trial.alarm:
            self._next_alarm = self._now + max(_FIRST_WAIT / 4, trial.lost / (4 * _SHARE))
            return
        wait = _FIRST_WAIT if self._failures < 2 else _WAIT
        self._failures += 1
        self._next_trial = self._now + max(wait, min(trial.lost / _SHARE, _LONGEST_WAIT))

    def _end_trial(self, scale: float) -> None:
        for usual in self._usual.values():
            usual.cost *= scale
        self._trial = None
        self._window.clear()
        self._slow = 0


class _Usual:
    """What a token costs in batches of one size: a low quantile of the latest, since a disturbance only ever adds."""

    __slots__ = ("cost", "seen")

    def __init__(self) -> None:
        self.cost = 0.0
        self.seen = 0

    def learn(self, cost: float) -> bool:
        """Take a cost; returns whether enough of them are known."""
        if self.seen < _LEARNT:
            self.seen += 1
            self.cost = min(self.cost, cost) if self.cost else cost
            return self.seen == _LEARNT
        self.cost += (cost - self.cost) * (0.1 if cost < self.cost else 0.03)
        return True


class _Trial:
    """Steps with another number of threads, and then with the settled one again. Usual costs stand still meanwhile."""

    __slots__ = (
        "after",
        "against",
        "alarm",
        "before",
        "confirming",
        "lost",
        "pro",
        "samples",
        "steps",
        "targets",
        "untold",
    )

    def __init__(self, targets: list[int], before: float, alarm: bool) -> None:
        self.targets = targets  # indices of rungs, the first of which is being tried
        self.before = before  # costs with the settled number, as multiples of the usual
        self.after = 0.0  # the same with the number that is being tried
        self.alarm = alarm
        self.lost = 0.0  # seconds that the settled number would have saved
        self.confirming = False
        self.begin()

    def begin(self) -> None:
        """Count anew."""
        self.steps = self.pro = self.against = 0
        self.untold = 0.0  # seconds in steps of sizes never seen before
        self.samples: list[float] = []

    def confirm(self) -> None:
        """Go on with the settled number."""
        self.after = _median(self.samples)
        self.confirming = True
        self.begin()

    def take(self, relative: float, seconds: float) -> None:
        """Take a cost as a multiple of the usual."""
        if self.confirming:
            ratio = self.after / relative
        else:
            ratio = relative / self.before
            self.samples.append(relative)
            self.lost += max(0.0, seconds * (1 - 1 / ratio))
        if ratio < _GAIN:
            self.pro += 1 + (ratio < 0.5)
        else:
            self.against += 1 + (ratio > 2) + (ratio > 4)  # a step that is so slow is enough
            if ratio > _LOST and not self.alarm and not self.confirming:
                self.against = _MAJORITY


def ladder(most: int, *also: int) -> list[int]:
    """The numbers of threads worth a trial, ascending: all that are small, and one less than there may be."""
    rungs = {*range(1, min(most, 8) + 1), most, max(1, most - 1), *also}
    step = 8
    while step < most:
        rungs |= {step, min(most, step * 3 // 2)}
        step *= 2
    return sorted(rungs)


def size_class(tokens: int, depth: int) -> int:
    """Batches whose cost per token is much the same: half an octave of tokens, a quarter of depth."""
    octave, depth = tokens.bit_length(), max(depth, 255)
    return (
        (octave << 1 | (tokens >> max(octave - 2, 0) & 1)) << 8
        | depth.bit_length() << 2
        | depth >> depth.bit_length() - 3 & 3
    )


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
