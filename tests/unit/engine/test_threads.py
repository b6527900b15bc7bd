"""The thread governor on a machine that exists only as a formula, in virtual time.

The threads of an evaluation meet at a barrier after every node of the graph. So with neighbours on some of the cores, more
threads than there are free cores take two to four times as long, and others a tenth longer.
"""

import random
from collections.abc import Callable

import pytest

from inferno_runtime.engine.threads import Kind, ThreadGovernor, ladder, size_class

WORK = 0.018  # seconds of one thread for a step


class Machine:
    """Cores, neighbours that come and go, and a governor that serves on them."""

    def __init__(
        self,
        cores: int,
        neighbours: Callable[[float], int] = lambda now: 0,
        *,
        initial: int | None = None,
        seed: int = 0,
        noise: float = 0.05,
        spikes: float = 0.02,
        saturation: int = 1000,
        slowdown: float = 3.0,
    ) -> None:
        """neighbours: how many at a time; noise: of a step's time; spikes: the share of steps that take three times as
        long; saturation: threads beyond which more are of no use, as when memory is the limit; slowdown: of a step with
        more threads than free cores.
        """
        self.cores = cores
        self.neighbours = neighbours
        self.noise = noise
        self.spikes = spikes
        self.saturation = saturation
        self.slowdown = slowdown
        self.random = random.Random(seed)
        self.governor = ThreadGovernor(cores, initial or cores)
        self.now = 0.0
        self.ideal = 0.0  # what would have been needed with the best number at each moment
        self.changes: list[tuple[float, int]] = []

    def seconds(self, threads: int, work: float) -> float:
        """What a step takes without noise."""
        quiet = work * (0.1 + 0.9 / min(threads, self.saturation))
        busy = self.neighbours(self.now)
        if busy == 0:
            return quiet
        return quiet * (self.slowdown if threads > self.cores - busy else 1.1)

    def step(self, kind: Kind = "decode", tokens: int = 1, work: float = WORK, depth: int = 500) -> None:
        threads = self.governor.threads(kind)
        assert 1 <= threads <= self.cores
        expected = self.seconds(threads, work)
        taken = expected * (1 + abs(self.random.gauss(0, self.noise)))
        if self.neighbours(self.now) and threads > self.cores - self.neighbours(self.now):
            taken *= self.random.uniform(2, 4) / 3
        if self.random.random() < self.spikes:
            taken *= 3
        self.ideal += taken * min(self.seconds(n, work) for n in range(1, self.cores + 1)) / expected
        self.now += taken
        settled = self.governor.settled(kind)
        assert self.governor.observe(kind, tokens, depth, taken, threads) == self.governor.threads(kind)
        if self.governor.settled(kind) != settled:
            self.changes.append((self.now, self.governor.settled(kind)))

    def run(self, until: float) -> None:
        while self.now < until:
            self.step()

    def run_mixed(self, until: float) -> None:
        """As when serving: batches of all sizes, and pieces of prompts between them."""
        while self.now < until:
            running = self.random.randrange(1, 9)
            self.step("decode", running, WORK * (0.7 + 0.3 * running), self.random.randrange(2000))
            if self.random.random() < 0.5:
                piece = self.random.randrange(16, 200)
                self.step("prefill", piece, WORK * piece / 20, self.random.randrange(2000))

    @property
    def regret(self) -> float:
        """The share of time that the best number at each moment would have saved."""
        return 1 - self.ideal / self.now

    def first_change_to(self, threads: int, after: float) -> float:
        return next(at for at, now_used in self.changes if now_used == threads and at > after)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("cores", [1, 2, 4, 16])
def test_on_quiet_cores_it_stays_and_costs_next_to_nothing(cores: int, seed: int) -> None:
    machine = Machine(cores, seed=seed)
    machine.run(120)
    assert machine.changes == []
    assert machine.regret < 0.012


@pytest.mark.parametrize("seed", range(4))
def test_two_cores_and_a_neighbour_who_comes_and_goes(seed: int) -> None:
    machine = Machine(2, lambda now: int(20 < now < 60), seed=seed)
    machine.run(120)
    assert machine.first_change_to(1, after=20) < 22.5
    assert machine.first_change_to(2, after=60) < 66
    assert len(machine.changes) == 2
    assert machine.regret < 0.045


def test_most_often_it_has_settled_within_a_second() -> None:
    delays = []
    for seed in range(21):
        machine = Machine(2, lambda now: int(now > 20), seed=seed)
        machine.run(23)
        delays.append(machine.first_change_to(1, after=20) - 20)
    assert sorted(delays)[10] < 0.5
    assert sorted(delays)[18] < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_neighbour_who_was_there_first_is_found_without_an_alarm(seed: int) -> None:
    machine = Machine(2, lambda now: 1, seed=seed)
    machine.run(60)
    assert machine.changes[0][0] < 8
    assert machine.governor.settled("decode") == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_few_steps_are_enough_when_they_take_a_second_each(seed: int) -> None:
    # as measured on two cores under a load of five
    machine = Machine(2, lambda now: 1, seed=seed, slowdown=100.0)
    for _ in range(8):
        machine.step()
    assert machine.governor.settled("decode") == 1
    machine.run(machine.now + 120)
    assert machine.governor.settled("decode") == 1
    assert machine.seconds(1, WORK) / machine.seconds(2, WORK) < 0.03


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("cores", "busy"), [(8, 1), (8, 3), (8, 7), (16, 2), (64, 20)])
def test_many_cores_and_several_neighbours(cores: int, busy: int, seed: int) -> None:
    machine = Machine(cores, lambda now: busy * (20 < now < 60), seed=seed)
    machine.run(120)
    fixed = Machine(cores, machine.neighbours, seed=seed)
    assert machine.regret < 0.12
    assert fixed.seconds(machine.governor.settled("decode"), WORK) <= fixed.seconds(cores, WORK) / 0.85


@pytest.mark.parametrize("seed", range(3))
def test_a_mix_of_sizes_and_kinds_is_no_obstacle(seed: int) -> None:
    machine = Machine(2, lambda now: int(20 < now < 60), seed=seed)
    machine.run_mixed(120)
    assert machine.regret < 0.12
    assert machine.governor.settled("decode") == machine.governor.settled("prefill") == 2
    assert {threads for at, threads in machine.changes if 25 < at < 60} <= {1}


@pytest.mark.parametrize("period", [0.2, 0.5, 1, 2, 5, 10, 20])
def test_a_restless_neighbour_costs_little_more_than_the_best_constant_number(period: float) -> None:
    machine = Machine(2, lambda now: int(now / period) % 2)
    machine.run(240)
    constant = []
    for threads in (1, 2):
        quiet, busy = (WORK * (0.1 + 0.9 / threads) * factor for factor in (1, 1.1 if threads == 1 else 3))
        best_quiet, best_busy = WORK * 0.55, WORK * 1.1
        # the same time of either kind passes, and what would have been needed for what was done in it
        constant.append(1 - (best_quiet / quiet + best_busy / busy) / 2)
    assert machine.regret < min(constant) + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_not_taken_for_a_neighbour(seed: int) -> None:
    machine = Machine(2, seed=seed, noise=0.3, spikes=0.1)
    machine.run(120)
    assert len(machine.changes) <= 8  # and back at once
    assert machine.governor.settled("decode") == 2
    assert machine.regret < 0.04


@pytest.mark.parametrize("seed", range(3))
def test_numbers_that_are_all_the_same_are_not_wandered_among(seed: int) -> None:
    machine = Machine(8, seed=seed, saturation=4)
    machine.run(120)
    assert len(machine.changes) <= 2
    assert machine.regret < 0.02


class Memory(Machine):
    """Two cores on which a lone token waits for memory, with whose bandwidth others interfere now and then.

    Then two threads are slower than one at that, but not at anything else.
    """

    def interfered(self) -> bool:
        return self.now % 20 < 1.5

    def seconds(self, threads: int, work: float) -> float:
        if work == WORK:
            return work * (0.5 if threads == 1 else 0.9 if self.interfered() else 0.48)
        return work / threads


@pytest.mark.parametrize("seed", range(8))
def test_prompts_do_not_follow_a_lone_token_that_is_as_fast_with_one_thread(seed: int) -> None:
    machine = Memory(2, seed=seed)
    while machine.now < 20:
        machine.step()
    slow = 0
    while machine.now < 200:
        for _ in range(24):
            machine.step()
        slow += machine.governor.threads("prefill") == 1
        machine.step("prefill", 128, 8 * WORK, 500)
    assert slow < 20, slow


def test_prompts_return_with_the_tokens_when_a_start_beside_a_neighbour_chose_few_threads() -> None:
    machine = Machine(2, initial=1)
    steps = 0
    while machine.governor.settled("decode") == 1:
        steps += 1
        assert steps < 12
        machine.step(tokens=6, work=4 * WORK)
        machine.step("prefill", 128, 8 * WORK, int(1000 * machine.now))  # as deep as none before
    assert machine.governor.settled("prefill") == 2


@pytest.mark.parametrize("seed", range(8))
def test_more_sequences_soon_have_the_threads_that_a_lone_one_did_not_want(seed: int) -> None:
    machine = Memory(2, seed=seed)
    while machine.now < 55 or machine.governor.settled("decode") == 2:
        machine.step()
        assert machine.now < 200
    began = machine.now
    while machine.governor.settled("decode") == 1:
        machine.step(tokens=6, work=4 * WORK)
    assert machine.now - began < 2


@pytest.mark.parametrize("seed", range(3))
def test_a_long_prompt_is_no_neighbour_though_its_pieces_get_slower_and_slower(seed: int) -> None:
    machine = Machine(2, seed=seed)
    for _ in range(20):
        for depth in range(0, 4000, 128):
            for _ in range(2):
                machine.step(tokens=6, work=2 * WORK)
            machine.step("prefill", 128, WORK * 8 * (1 + depth / 1000), depth)
    assert machine.changes == []
    assert machine.regret < 0.012


def test_slower_steps_that_no_number_makes_faster_are_what_is_usual_from_then_on() -> None:
    machine = Machine(2)
    machine.run(10)
    while machine.now < 60:
        machine.step(work=4 * WORK)  # of the same size: the clock rate fell, say
    assert machine.changes == []
    assert machine.regret < 0.03


def test_another_number_than_was_asked_for_teaches_nothing() -> None:
    governor = ThreadGovernor(4, 4)
    for _ in range(1000):
        assert governor.observe("decode", 1, 0, 1.0, 2) == 4


def test_a_trial_ends_though_every_batch_is_of_a_size_never_seen() -> None:
    governor = ThreadGovernor(2, 2)
    for _ in range(100):
        governor.observe("decode", 1, 0, 0.1, governor.threads("decode"))
        if governor.threads("decode") == 1:
            break
    assert governor.threads("decode") == 1
    for size in range(40):
        governor.observe("decode", 2 << size, 0, 0.1, governor.threads("decode"))
    assert governor.threads("decode") == governor.settled("decode") == 2


def test_the_initial_number_is_kept_though_it_is_no_rung() -> None:
    assert ThreadGovernor(64, 37).threads("prefill") == 37


@pytest.mark.parametrize(
    ("most", "rungs"),
    [
        (1, [1]),
        (2, [1, 2]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 11, 12]),
        (64, [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 63, 64]),
    ],
)
def test_the_ladder(most: int, rungs: list[int]) -> None:
    assert ladder(most) == rungs


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((1, 0), (1, 255), True),
        ((1, 300), (1, 600), False),
        ((1, 1100), (1, 1200), True),
        ((1, 1100), (1, 1300), False),
        ((1, 0), (2, 0), False),
        ((2, 0), (3, 0), False),
        ((4, 0), (5, 0), True),
        ((5, 0), (6, 0), False),
        ((128, 0), (192, 0), False),
    ],
)
def test_sizes_that_cost_the_same(one: tuple[int, int], other: tuple[int, int], same: bool) -> None:
    assert (size_class(*one) == size_class(*other)) is same


def test_no_more_threads_are_tried_while_all_cores_are_taken() -> None:
    free = [0.0]
    governor = ThreadGovernor(2, 1, lambda: free[0])
    for _ in range(2000):
        assert governor.observe("decode", 1, 100, 0.01, governor.threads("decode")) == 1
    free[0] = 1.0
    tried = {governor.observe("decode", 1, 100, 0.01, governor.threads("decode")) for _ in range(1000)}
    assert tried == {1, 2}
