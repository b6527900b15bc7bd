"""How much of the prompts is evaluated before the running sequences go on."""

from inferno_runtime.engine.cost import LEAST_PIECE, PrefillCost

_SLACK = 1.5  # times what is left of a budget, for a prompt that this ends: every piece costs a pass over the weights,
_WHOLE = 2.5  # and times all of it, for one that begins there
_SCRAP = 0.5  # of what fits into a budget; less of a prompt is left for the next step
_ALONE = 4  # times the budget where no sequence is running


class PrefillBudget:
    """A step's time for prompts, and the pieces of them that it is spent on."""

    def __init__(self, cost: PrefillCost, seconds: float) -> None:
        """seconds: of a step."""
        self._cost = cost
        self._seconds = seconds
        self._deadline = 0.0
        self._turn = 0.0
        self._first = True

    def begin(self, now: float, *, running: bool, turn: float) -> None:
        """The running sequences, if there are any, have had their turn; the next one will take `turn` seconds."""
        # Without a running sequence nobody is held up, and larger pieces are cheaper by the token.
        self._deadline = now + self._seconds * (1 if running else _ALONE)
        self._turn = turn if running else 0.0
        self._first = True

    def end(self) -> None:
        """The running sequences are due."""
        self._deadline, self._first = 0.0, False

    def piece(self, left: int, depth: int, now: float) -> int:
        """How many of a prompt's last `left` tokens to evaluate behind `depth` cells; 0 when the step's time is spent.

        One piece is evaluated in any case, so that prompts get on however small the budget is.
        """
        seconds = self._deadline - now
        fitting = self._cost.fitting(seconds, depth) if seconds > 0 else 0
        if self._whole(left, depth, seconds, fitting):
            count = left
        elif self._first:
            count = self._cost.piece(seconds, depth, self._turn)
        else:
            count = fitting if fitting >= _SCRAP * self._cost.piece(self._seconds, depth, self._turn) else 0
        self._first = False
        return min(count, left)

    def _whole(self, left: int, depth: int, seconds: float, fitting: int) -> bool:
        if self._first:
            return left <= LEAST_PIECE or self._cost.seconds(left, depth) <= max(seconds, _WHOLE * self._seconds)
        return left <= fitting * _SLACK
