"""What this machine prefers for this model: measured at the first start, and remembered.

Flash attention, the number of threads and the micro-batch depend on the CPU, the model and the depth in ways that nobody
guesses right. `choose` is given a function that measures, and needs no model; the files are plain JSON, one per model.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_PROMPT = 256  # tokens of a typical request that are not in memory already,
_ANSWER = 128  # and tokens that it asks for; half of these it decodes alone and half in company
_GAIN = 0.95  # of the time: worth leaving the default; less of a gain is not told from noise,
_SURE = 0.75  # and this is, even where there is no time to measure again
_VERSION = 1
_SAMPLE = 64 * 1024  # bytes of the model file that go into its fingerprint, at either end
_ENTRIES = 32  # machines and settings remembered for a model
_LARGEST_FILE = 1 << 20


class Candidate(NamedTuple):
    """A setting to measure."""

    flash_attention: bool
    threads: int
    micro_batch: int  # most tokens in one pass over the weights, and so in a piece of a prompt


class Rates(NamedTuple):
    """Tokens per second at a realistic depth: one sequence alone, several together, a prompt."""

    decode: float
    batched: float
    prefill: float

    @property
    def seconds(self) -> float:
        """What a typical request takes: the less, the better."""
        return _PROMPT / self.prefill + _ANSWER / 2 / self.decode + _ANSWER / 2 / self.batched


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen: the default comes first, and stands alone where the configuration has decided."""

    flash_attention: tuple[bool, ...]
    threads: tuple[int, ...]
    micro_batch: tuple[int, ...]

    @property
    def default(self) -> Candidate:
        """The setting without a measurement."""
        return Candidate(self.flash_attention[0], self.threads[0], self.micro_batch[0])


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was chosen. `rates` are those of the choice; None when there was no time to measure any."""

    flash_attention: bool
    threads: int
    micro_batch: int
    rates: Rates | None = None
    measurements: int = 0
    seconds: float = 0.0  # that they took
    complete: bool = True  # each option was tried, by ourselves; the next start need not look again

    def __str__(self) -> str:
        attention = "on" if self.flash_attention else "off"
        setting = f"flash attention {attention}, threads {self.threads}, micro-batch {self.micro_batch}"
        if self.rates is None:
            return f"{setting} (not measured)"
        rates = "{:.0f} tokens/s decoding alone, {:.0f} in company, {:.0f} prefilling".format(*self.rates)
        return f"{setting} ({rates}; {self.measurements} measurements in {self.seconds:.1f} s)"

    def wire(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "flashAttention": self.flash_attention,
            "threads": self.threads,
            "microBatch": self.micro_batch,
            "rates": None if self.rates is None else {k: round(v, 2) for k, v in self.rates._asdict().items()},
            "measurements": self.measurements,
            "seconds": round(self.seconds, 2),
        }


def options(
    quota: int,
    *,
    flash_attention: bool | None = None,
    threads: int | None = None,
    micro_batch: int | None = None,
    kv_cache_type: str = "f16",
) -> Options:
    """What there is to choose from under a CPU quota; what is not None is decided already."""
    if kv_cache_type == "q8_0":
        flash_attention = True  # without it there is no kernel for quantised values
    half = -(-quota // 2)  # as many as there are cores, where each of them counts as two CPUs
    return Options(
        flash_attention=(True, False) if flash_attention is None else (flash_attention,),
        threads=tuple(dict.fromkeys((quota, half))) if threads is None else (threads,),
        micro_batch=(512, 256, 128) if micro_batch is None else (micro_batch,),
    )


def choose(
    measure: Callable[[Candidate, float], tuple[float, float, float] | None],
    among: Options,
    *,
    budget: float,
    clock: Callable[[], float],
    content: float = 0.0,
) -> Tuning:
    """Find the best of the options within about `budget` seconds.

    content: seconds; where a typical request takes no longer with the default, that is kept, and nobody waits for more.

    measure: returns the `Rates` of a candidate, or None when these cannot be had within so many seconds or at all.

    One knob after another, each with the best of those before it; threads first, since beside a busy neighbour too many
    of them drown every other difference. A candidate takes the lead where the leader, measured once more, does not come
    near it: what disturbs a measurement only ever slows it down. When the time is up, what leads stays.
    """
    began = clock()
    knobs = ("threads", "flash_attention", "micro_batch")
    rivals = [(knob, value) for knob in knobs for value in getattr(among, knob)[1:]]
    # Two, for the leader's second measurements; and half of it, so that all are measured though some take longer.
    share = budget / (len(rivals) + 2) / 2
    measurements = 0
    complete = True

    def rates_of(candidate: Candidate) -> Rates | None:
        nonlocal complete, measurements
        left = began + budget - clock()
        complete &= left > 0
        measured = measure(candidate, min(share, left)) if left > 0 else None
        if measured is None or not all(rate > 0 and math.isfinite(rate) for rate in measured):
            return None
        measurements += 1
        return Rates(*measured)

    leader = among.default
    best = rates_of(leader) if rivals else None
    if best and best.seconds <= content:
        rivals = []
    for knob, value in rivals:
        if best is None and knob != "threads":
            complete = False
            break
        rival = leader._replace(**{knob: value})
        rates = rates_of(rival)
        if rates and best and rates.seconds < _GAIN * best.seconds:
            again = rates_of(leader)
            best = min(best, again or best, key=lambda rates: rates.seconds)
            if rates.seconds < (_GAIN if again else _SURE) * best.seconds:
                leader, best = rival, rates
        elif best is None and rates:  # there were too many threads to come to an end, or something came between
            best = rates_of(leader)
            if best is None or rates.seconds < _GAIN * best.seconds:
                leader, best = rival, rates
    return Tuning(*leader, best, measurements, clock() - began, complete)


def fingerprint(model: Path) -> str:
    """What tells a model file from another without reading it all: its size, its beginning and its end.

    Not when it was written: a file that was fetched again is the same model.
    """
    size = model.stat().st_size
    with model.open("rb") as file:
        digest = hashlib.sha256(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return f"{size}-{digest.hexdigest()[:32]}"


def key(facts: Mapping[str, object]) -> str:
    """The name under which a tuning is remembered: everything that bears on what is best, options included."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:32]


def places(model: Path, environment: Mapping[str, str]) -> list[Path]:
    """The files in which tunings of a model may be remembered, the preferred one first.

    Beside the model, so that whoever mounts the same volume finds it; else in the user's cache; else among temporary files,
    which in a pod outlive the engine and its container. The model that comes with this package is no reason to write among
    a program's own files.
    """
    temporary = Path(environment.get("TMPDIR") or "/tmp")  # noqa: S108  # what it says is only ever one of the options
    cache = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "/tmp") / ".cache")  # noqa: S108
    path = model.absolute()
    own = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    cached = [place / "inferno" / "tuning" / f"{model.name}-{own}.json" for place in (cache, temporary)]
    if Path(__file__).resolve().parents[1] in path.resolve().parents:
        return cached
    return [path.with_name(f"{model.name}.tuning.json"), *cached]


def parse(entry: Mapping[str, Any], among: Options) -> Tuning:
    """A tuning from JSON. Raises KeyError, TypeError or ValueError where it makes no sense, or is none of the options."""
    rates = entry["rates"]
    return Tuning(
        among.flash_attention[among.flash_attention.index(entry["flashAttention"])],
        among.threads[among.threads.index(entry["threads"])],
        among.micro_batch[among.micro_batch.index(entry["microBatch"])],
        None if rates is None else Rates(*(float(rates[field]) for field in Rates._fields)),
        int(entry["measurements"]),
        float(entry["seconds"]),
    )


def recall(files: Sequence[Path], name: str, among: Options) -> Tuning | None:
    """The tuning of that name, if a file has one that makes sense."""
    for file in files:
        try:
            tuning = parse(_entries(file)[name]["tuning"], among)
        except (KeyError, TypeError, ValueError):  # no such entry, or one that is not ours
            continue
        if tuning.rates:
            return tuning
    return None


def remember(files: Sequence[Path], facts: Mapping[str, object], tuning: Tuning) -> Path | None:
    """Write a tuning into the first of the files that can be written.

    None if none can be, since nothing depends on it, and for one that was cut short: next time there may be time.
    """
    for file in files if tuning.rates and tuning.complete else ():
        entries = {name: entry for name, entry in _entries(file).items() if name != key(facts)}
        entries[key(facts)] = {"tuning": tuning.wire(), "facts": dict(facts)}
        newest = dict(list(entries.items())[-_ENTRIES:])
        with contextlib.suppress(OSError):
            _write(file, json.dumps({"version": _VERSION, "tunings": newest}, indent=1))
            return file
    return None


def _entries(file: Path) -> dict[str, Any]:
    """What a file remembers; nothing, if it is missing, damaged or of another version."""
    try:
        content = json.loads(file.read_text() if file.stat().st_size <= _LARGEST_FILE else "{}")
    except (OSError, ValueError, RecursionError):
        return {}
    known = isinstance(content, dict) and content.get("version") == _VERSION and content.get("tunings")
    return known if isinstance(known, dict) else {}


def _write(file: Path, text: str) -> None:
    """Put a file in place whole: pods that share a volume may start at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        temporary.chmod(0o644)  # for pods of another user
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
