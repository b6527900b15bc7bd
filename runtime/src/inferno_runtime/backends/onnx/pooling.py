"""From the states of a text's tokens to its vector, as sentence-transformers has it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import ModelError
from inferno_runtime.models.layout import Layout

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]
# states: shape (texts, tokens, width), each text at the beginning of its row; counts: of its tokens.
Pool = Callable[[Floats, Counts], Floats]


def _mask(states: Floats, counts: Counts) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.arange(states.shape[1]) < counts[:, None]
    return mask


def _weighted(states: Floats, weights: NDArray[Any], divisors: NDArray[Any]) -> Floats:
    sums: NDArray[Any] = np.matmul(weights.astype(np.float32)[:, None, :], states)[:, 0]
    means: NDArray[Any] = sums / divisors[:, None]
    return means.astype(np.float32)


def _mean(states: Floats, counts: Counts) -> Floats:
    return _weighted(states, _mask(states, counts), counts)


def _mean_sqrt_len(states: Floats, counts: Counts) -> Floats:
    return _weighted(states, _mask(states, counts), np.sqrt(counts))


def _weighted_mean(states: Floats, counts: Counts) -> Floats:
    """Later tokens count for more, since only they have seen the rest."""
    weights = _mask(states, counts) * np.arange(1, states.shape[1] + 1)
    return _weighted(states, weights, weights.sum(axis=1))


def _max(states: Floats, counts: Counts) -> Floats:
    beyond = ~_mask(states, counts)[:, :, None]
    largest: Floats = np.where(beyond, np.float32(-np.inf), states).max(axis=1)
    return largest


def _first(states: Floats, counts: Counts) -> Floats:
    return states[:, 0]


def _last(states: Floats, counts: Counts) -> Floats:
    return states[np.arange(len(counts)), counts - 1]


_POOLS: dict[str, Pool] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "last": _last,
    "lasttoken": _last,
}
# The switches of 1_Pooling/config.json, in the order in which several vectors are put one behind the other.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def stated_pooling(layout: Layout) -> tuple[str, ...]:
    """What 1_Pooling/config.json asks for; nothing if there is none. Raises `ModelError` for what is not known here."""
    config = layout.json("1_Pooling/config.json")
    named: Any = config.get("pooling_mode")
    names = [name for switch, name in _SWITCHES.items() if config.get(switch)]
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
    for name in names:
        if name not in _POOLS:
            raise ModelError(f"{layout.path('1_Pooling/config.json')}: pooling by {name!r} is not supported")
    return tuple(names)


def pool(names: Sequence[str], states: Floats, counts: Counts) -> Floats:
    """The vectors of texts, shape (texts, width times the number of names)."""
    if len(names) == 1:
        return _POOLS[names[0]](states, counts)
    return np.concatenate([_POOLS[name](states, counts) for name in names], axis=1)
