"""Settles what the hardware prefers: remembered from an earlier start, or measured now on the model itself."""

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inferno_runtime.backends.base import Measurer, Setting
from inferno_runtime.config import EngineConfig
from inferno_runtime.cpu import AvailableCores, IdleCores, cpu_facts, cpu_limit, cpu_quota
from inferno_runtime.engine.threads import ThreadGovernor
from inferno_runtime.engine.tuning import (
    Options,
    Tuning,
    choose,
    fingerprint,
    key,
    options,
    parse,
    places,
    recall,
    remember,
)

logger = logging.getLogger(__name__)

BUDGET = 6.0  # seconds of measurement at a first start
TAKEN = 0.25  # cores that others had meanwhile, of those that are ours: what was measured says little of other days
CONTENT = 0.25  # seconds of a typical request; of a model that is as small as that nobody would notice what is gained


class StartTuner:
    """Chooses the backend's settings when it loads. `tuning` is what was chosen.

    ``before`` is what the engine had that this one takes the place of: who waits for it does not wait for measurements, and
    the same seed gives the same answer.
    """

    def __init__(
        self,
        path: Path,
        config: EngineConfig,
        before: Mapping[str, Any] | None = None,
        available: Callable[[], float] | None = None,
    ) -> None:
        """available: cores that were ours or idle since it was last asked."""
        self._path = path
        self._available = available or AvailableCores()
        self._config = config
        self._before = before or {}
        self.tuning: Tuning | None = None

    def __call__(self, measurer: Measurer, facts: dict[str, Any]) -> Setting:
        among = self._among()
        if self._config.tuning == "off":
            first = among.default
            self.tuning = Tuning(first.flash_attention, first.threads, first.micro_batch)
            return self.tuning
        with contextlib.suppress(KeyError, TypeError, ValueError):  # there was none
            self.tuning = parse(self._before, among)
            return self.tuning
        facts |= {
            "model": fingerprint(self._path),
            "cpu": cpu_facts(),
            "quota": cpu_limit(),
            "engine": self._config.wire(),
            "options": dataclasses.asdict(among),
        }
        files = places(self._path, os.environ)
        tuning = recall(files, key(facts), among)
        if tuning is None:
            tuning = self._choose(measurer, among)
            remember(files, facts, tuning)
        logger.info("tuned: %s", tuning)
        self.tuning = tuning
        return tuning

    def _choose(self, measurer: Measurer, among: Options) -> Tuning:
        self._available()  # from here on
        with measurer(among.default) as measure:
            tuning = choose(measure, among, budget=BUDGET, clock=time.monotonic, content=CONTENT)
        if self._available() < cpu_quota() - TAKEN:
            logger.info("other programs had some of the cores meanwhile: the next start measures again")
            return dataclasses.replace(tuning, complete=False)
        if not tuning.complete:
            logger.info("there was not the time to measure everything: the next start tries again")
        return tuning

    def _among(self) -> Options:
        config = self._config
        return options(
            cpu_quota(),
            flash_attention={"auto": None, "on": True, "off": False}[config.flash_attention],
            threads=config.threads,
            micro_batch=config.micro_batch,
            kv_cache_type=config.kv_cache_type,
        )


def governor(config: EngineConfig, threads: int) -> ThreadGovernor | None:
    """Who says how many threads evaluate; nobody where that is configured, not ours to say (0), or no choice."""
    quota = cpu_quota()
    if config.threads or not threads or quota == 1:
        return None
    return ThreadGovernor(quota, threads, IdleCores())
