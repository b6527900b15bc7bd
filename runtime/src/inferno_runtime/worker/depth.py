"""How deep a queue is, was on average, and was at most."""

from dataclasses import dataclass


@dataclass(slots=True)
class Depth:
    """A number that changes now and then. Points in time are seconds on one clock, and never run backwards."""

    value: int = 0
    most: int = 0
    _began: float | None = None  # when it was first set
    _changed: float = 0.0
    _area: float = 0.0  # of the value over time, up to the last change

    def set(self, value: int, now: float) -> None:
        """It is `value` from now on."""
        if self._began is None:
            self._began = self._changed = now
        self._area += self.value * (now - self._changed)
        self._changed = now
        self.value = value
        self.most = max(self.most, value)

    def mean(self, now: float) -> float:
        """Its mean since it was first set."""
        if self._began is None or now <= self._began:
            return float(self.value)
        return (self._area + self.value * (now - self._changed)) / (now - self._began)
