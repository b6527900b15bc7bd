"""What Inferno means to reach, beside whom. Every ratio says how many times better Inferno is."""

from dataclasses import dataclass

from benchmarks.stats import Figures, Spread, ratios, spread

INFERNO, PLAIN = "inferno", "inferno-plain"
LLAMA_SERVER, BEST = "llama-server", "llama-server-best"
EXAMPLE, HIGH_LEVEL = "example-server", "llama_cpp.server"
RAW = "batched-bench"

Rounds = dict[str, dict[str, list[Figures]]]  # load → server → figures of each round

_LESS_IS_BETTER = {"first_p50", "first_p99", "gap_p99", "gap_max", "long_first", "answer_p50", "overhead_mb"}


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio to reach on a load. Without a `peer` the figure itself must be at most `goal`."""

    load: str
    figure: str
    peer: str
    goal: float | None  # None: the ratio is shown, without a goal

    def measured(self, rounds: Rounds) -> Spread | None:
        """The ratio, or the figure; None where it was not measured."""
        servers = rounds.get(self.load, {})
        ours = servers.get(INFERNO, [])
        if not self.peer:
            return spread([figures[self.figure] for figures in ours if self.figure in figures])
        return ratios(ours, servers.get(self.peer, []), self.figure, less_is_better=self.figure in _LESS_IS_BETTER)

    def reached(self, value: Spread) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self.goal is None:
            return None
        return value.middle >= self.goal if self.peer else value.middle <= self.goal


def _throughput(peer: str, **goals: float | None) -> list[Target]:
    return [Target(load, "tokens_per_second", peer, goal) for load, goal in goals.items()]


TARGETS = (
    *_throughput(LLAMA_SERVER, chat1=1.20, chat8=1.15, chat32=1.35),
    *_throughput(BEST, chat1=1.03, chat8=1.05, chat32=1.10),
    Target("chat1", "first_p50", BEST, 1.1),
    Target("chat8", "first_p50", BEST, 3),
    Target("chat32", "first_p50", BEST, 6),
    *_throughput(EXAMPLE, chat1=1.4, chat8=1.2, chat32=1.3),
    *_throughput(HIGH_LEVEL, chat8=2.2),
    *_throughput(RAW, chat1=None, chat8=None, chat32=0.97),
    Target("shared8", "tokens_per_second", BEST, 3),
    Target("shared8", "first_p50", BEST, 6),
    Target("shared32", "tokens_per_second", BEST, None),
    Target("shared32", "first_p50", BEST, None),
    Target("conversations", "tokens_per_second", LLAMA_SERVER, 1.15),
    Target("conversations", "first_p50", LLAMA_SERVER, 2),
    Target("conversations", "tokens_per_second", BEST, None),
    Target("long", "gap_max", LLAMA_SERVER, 10),
    Target("long", "long_first", LLAMA_SERVER, 1 / 1.3),
    Target("long", "gap_max", BEST, None),
    Target("long", "long_first", BEST, None),
    *_throughput(BEST, rag=None, partial=None, burst=None),
    Target("rag", "first_p50", BEST, None),
    Target("partial", "first_p50", BEST, None),
    Target("burst", "first_p99", LLAMA_SERVER, 2),
    Target("burst", "first_p99", BEST, None),
    Target("repetition", "tokens_per_second", PLAIN, 1.8),
    *_throughput(LLAMA_SERVER, busy1=1.5, busy8=1.5),
    *_throughput(BEST, busy1=None, busy8=None),
    Target("embeddings", "vectors_per_second", LLAMA_SERVER, None),
    Target("embeddings", "answer_p50", LLAMA_SERVER, None),
    Target("embeddings", "vectors_per_second", BEST, None),
    Target("embeddings", "answer_p50", BEST, None),
    Target("memory", "overhead_mb", "", 150),
    Target("memory", "overhead_mb", LLAMA_SERVER, None),
)
