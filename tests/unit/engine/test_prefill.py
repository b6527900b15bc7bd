"""What prompt evaluation is learnt to cost, and the pieces that follow from it."""

import pytest

from inferno_runtime.engine.cost import LEAST_PIECE, PrefillCost
from inferno_runtime.engine.prefill import PrefillBudget


def tiled(tokens: int, depth: int) -> float:
    """Seconds of a piece, where a kernel takes 64 tokens at a time and smaller pieces the slow way."""
    return tokens * (5e-4 + depth * (1e-6 if tokens >= 64 else 2e-6))


def learnt(*sizes: int, depths: tuple[int, ...] = (0, 600, 1000, 2000, 3000)) -> PrefillCost:
    cost = PrefillCost()
    for depth in depths:
        for size in sizes:
            for _ in range(5):
                cost.observe(size, depth, tiled(size, depth))
    return cost


def test_before_anything_is_measured_a_piece_is_cautious() -> None:
    assert PrefillCost(initial=1e-3).fitting(0.1, 0) == 100


@pytest.mark.parametrize("depth", [0, 1000, 3000])
def test_what_fits_costs_no_more_than_there_is_time(depth: int) -> None:
    cost = learnt(16, 32, 64, 128, 256)
    for seconds in (0.05, 0.1, 0.3):
        assert tiled(cost.fitting(seconds, depth), depth) <= seconds * 1.15


def test_deep_pieces_are_as_large_as_the_kernel_likes_them() -> None:
    cost = learnt(16, 32, 64)
    assert cost.fitting(0.1, 3000) < 64
    assert cost.piece(0.1, 3000, pause=0.0) >= 64
    assert cost.seconds(cost.piece(0.1, 3000, pause=0.0), 3000) <= 0.25


@pytest.mark.parametrize("slow", [1, 2, 4])
def test_a_slow_machine_does_not_evaluate_deep_prompts_in_crumbs(slow: int) -> None:
    cost = PrefillCost()
    for depth in range(0, 3000, 250):
        for size, share in (
            (16, 0.5),
            (32, 0.95),
            (64, 1.0),
        ):  # of what a tile takes, by a kernel that is made for tiles
            for _ in range(5):
                cost.observe(size, depth, slow * share * (0.06 + 0.05 * (depth / 1000)))
    for depth in (1000, 2000, 3000):
        assert cost.piece(0.1, depth, pause=0.05) >= 64


def test_a_model_too_slow_for_the_budget_gets_the_least_piece() -> None:
    cost = PrefillCost()
    cost.observe(64, 0, 64 * 0.05)
    assert cost.piece(0.1, 0, pause=0.5) == LEAST_PIECE


def test_a_long_pause_after_each_piece_makes_it_larger() -> None:
    cost = learnt(16, 32, 64, 128, 256, depths=(0,))
    assert cost.piece(0.1, 0, pause=0.001) < cost.piece(0.1, 0, pause=0.1)


def test_one_disturbed_measurement_of_large_pieces_is_not_believed_for_ever() -> None:
    cost = learnt(32)
    cost.observe(64, 3000, 64 * 0.1)
    for _ in range(70):
        piece = cost.piece(0.1, 3000, pause=0.0)
        cost.observe(piece, 3000, tiled(piece, 3000))
    assert cost.piece(0.1, 3000, pause=0.0) >= 64


def test_a_short_prompt_is_not_cut() -> None:
    budget = PrefillBudget(learnt(16, 32, 64, 128, 256), 0.1)
    budget.begin(0.0, running=True, turn=0.02)
    assert budget.piece(140, 0, 0.0) == 140


def test_no_scrap_of_a_long_prompt_follows_a_short_one() -> None:
    budget = PrefillBudget(learnt(16, 32, 64, 128, 256), 0.1)
    budget.begin(0.0, running=True, turn=0.02)
    assert budget.piece(70, 0, 0.0) == 70
    assert budget.piece(1000, 0, 0.07) == 0
    assert budget.piece(30, 0, 0.07) == 30
    budget.begin(0.2, running=True, turn=0.02)
    assert budget.piece(1000, 0, 0.2) > 64


def test_prompts_get_on_however_small_the_budget_is() -> None:
    budget = PrefillBudget(learnt(16, 64), 1e-9)
    budget.begin(0.0, running=True, turn=0.0)
    assert budget.piece(1000, 0, 0.0) == LEAST_PIECE
    assert budget.piece(1000, 0, 0.1) == 0


def test_nobody_to_hold_up_means_larger_pieces() -> None:
    budget = PrefillBudget(learnt(16, 32, 64, 128, 256), 0.1)
    budget.begin(0.0, running=False, turn=0.0)
    assert budget.piece(5000, 0, 0.0) > 256
