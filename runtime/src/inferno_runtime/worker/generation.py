"""One sequence as the server sees it: tokens come in by the step, text goes out by the event."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inferno_runtime.engine.detokenizer import Detokenizer
from inferno_runtime.engine.request import Finished, FinishReason, Scores, Started, Usage
from inferno_runtime.worker.errors import EngineError, GenerationFailed, GenerationTimeout, OutOfMemory, TokenTimeout
from inferno_runtime.worker.transcript import Score, Transcript, unpacked

MOST_UNREAD = 256  # tokens that are kept for a reader who is busy elsewhere; with more the engine pauses

# Tokens that become text together, where nothing asks for it sooner: joining them costs less than each by itself. A text
# that is read as a whole is told of in such numbers, or after so long.
_TOGETHER = 64
_TOLD_SECONDS = 1.0


@dataclass(slots=True)
class Delta:
    """The next piece of a sequence's text, the tokens that made it, and the reason if it is the last."""

    text: str
    tokens: int
    finish_reason: FinishReason | None
    scores: list[Score] = field(default_factory=list)  # of the tokens whose text is now there, if they are asked for


class Generation:
    """A running sequence. Belongs to the event loop that made it; one reader at a time.

    While nobody reads, the engine is paused before much is kept here, so a slow client costs no more memory than a fast one.
    """

    def __init__(
        self,
        request_id: int,
        prompt_tokens: int,
        pieces: Sequence[bytes],
        stop: Sequence[str],
        cancel: Callable[[int], None],
        deadline: float | None,
        *,
        pause: Callable[[int, bool], None] = lambda number, paused: None,
        token_timeout: float | None = None,
        scored: bool = False,
    ) -> None:
        """cancel, pause: tell the engine; deadline: on the loop's clock, None for none; token_timeout: seconds that a
        sequence that runs may be without a token, None for any; scored: whether the engine tells how likely tokens were.
        """
        self.id = request_id
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.cached_tokens = 0
        self._detokenizer = Detokenizer(pieces, stop)
        self._most_tokens = 1 if stop else _TOGETHER  # a stop string must be found before the next step
        self._cancel = cancel
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._tokens: list[int] = []  # that are not text yet
        self._text: list[str] = []
        self._shown = 0  # characters of text so far
        self._transcript = Transcript(pieces) if scored else None
        self.prompt_scores: list[tuple[float, Sequence[tuple[int, float]]]] = []  # from the prompt's second token on
        self._unread = 0  # tokens
        self._reason: FinishReason | None = None
        self._error: EngineError | None = None
        self._first = True  # nothing was read yet
        self._waiter: asyncio.Future[None] | None = None
        self._least = 1
        self._wait = 0.0
        self._batch_timer: asyncio.TimerHandle | None = None
        self._deadline_timer = self._loop.call_at(deadline, self._time_out) if deadline is not None else None
        self._held = False  # paused by the server
        self._crowded = False  # too much is unread
        self.paused = False  # what the engine was told
        self._resumed = 0.0
        self._token_timeout = token_timeout
        self._token_timer: asyncio.TimerHandle | None = None
        self.submitted = self._loop.time()
        self.first_token_at: float | None = None  # on the loop's clock, as all points in time here
        self.last_token_at: float | None = None
        self._queued = 0.0
        self._prefill = 0.0
        self._detokenize = 0.0

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._reason is not None or self._error is not None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the sequence ended, once it has, and unless that was an error."""
        return self._reason

    @property
    def mean_score(self) -> float:
        """The mean of its tokens' logarithms; minus infinity where there are none."""
        return self._transcript.mean if self._transcript is not None else float("-inf")

    @property
    def stop(self) -> str:
        """The stop string that ended the sequence; empty if none did."""
        return self._detokenizer.stop

    @property
    def usage(self) -> Usage:
        """What the sequence has taken so far."""
        first = decode = 0.0
        if self.first_token_at is not None and self.last_token_at is not None:
            # What is left of the time to the first token: sampling it, and its way here.
            first = max(self.first_token_at - self.submitted - self._queued - self._prefill, 0.0)
            decode = self.last_token_at - self.first_token_at
        return Usage(
            self.prompt_tokens,
            self.cached_tokens,
            self.completion_tokens,
            self._queued,
            self._prefill,
            decode,
            first,
            self._detokenize,
        )

    async def read(self, least: int = 1, wait: float = 0.0) -> Delta:
        """The next piece: when there are `least` tokens, or `wait` seconds after the first unread one, or at the end.

        A sequence's first token is returned at once. Raises `EngineError`, after the text that came before it was read.
        """
        self._least, self._wait = (1, 0.0) if self._first else (least, wait)
        if not (self.ended or self._unread >= self._least):
            self._waiter = self._loop.create_future()
            if self._unread:
                self._start_timer()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self._stop_timer()
        if self._error is not None and not self._unread:
            raise self._error
        self._make_text()
        delta = Delta("".join(self._text), self._unread, None if self._error else self._reason, self._scores())
        self._text.clear()
        self._unread = 0
        self._first = False
        if self._crowded:
            self._crowded = False
            self._regulate()
        return delta

    async def read_all(self, made: Callable[[int], None] = lambda tokens: None) -> Delta:
        """The whole text, once it is complete. Raises `EngineError`.

        made: told of every so many new tokens, which add up to all of them.
        """
        parts: list[str] = []
        scores: list[Score] = []
        while True:
            delta = await self.read(_TOGETHER, _TOLD_SECONDS)
            made(delta.tokens)
            parts.append(delta.text)
            scores += delta.scores
            if delta.finish_reason is not None:
                return Delta("".join(parts), self.completion_tokens, delta.finish_reason, scores)

    def cancel(self) -> None:
        """End the sequence; its slot is free within a step."""
        if not self.ended:
            self._cancel(self.id)
            self._end(FinishReason.CANCELLED)

    def pause(self) -> None:
        """Have the engine stop for now, since the client can take no more; what it had made can still be read."""
        self._held = True
        self._regulate()

    def resume(self) -> None:
        """Have it go on."""
        self._held = False
        self._regulate()

    # What the engine says, by way of the client.

    def on_started(self, started: Started) -> None:
        """The prompt was evaluated."""
        self.cached_tokens = started.cached_tokens
        self._queued = started.queued
        self._prefill = started.prefill

    def start_over(self) -> bool:
        """The engine has died. Forget what it has said, if none of it was a token; gives whether another can begin anew."""
        self.prompt_scores.clear()
        return self.first_token_at is None

    def on_scores(self, scores: Scores) -> None:
        """How likely the prompt's tokens were, or those that come next."""
        if self._transcript is None or self.ended:
            return
        if scores.prompt:
            self.prompt_scores.extend(unpacked(scores))
        else:
            self._transcript.add(scores)

    def on_tokens(self, tokens: Sequence[int]) -> None:
        """Tokens came out of a step."""
        if self.ended:
            return
        self.last_token_at = self._loop.time()
        if self.first_token_at is None:
            self.first_token_at = self.last_token_at
            self._watch_tokens(self._token_timeout)
        for token in tokens:
            self.completion_tokens += 1
            self._unread += 1
            self._tokens.append(token)
            if len(self._tokens) >= self._most_tokens:
                self._make_text()
                if self._detokenizer.stopped:
                    self._cancel(self.id)
                    self._end(FinishReason.STOP)
                    return
        if self._waiter is None:
            if self._unread >= MOST_UNREAD and not self._crowded:
                self._crowded = True
                self._regulate()
            return
        if self._unread >= self._least:
            self._wake()
        elif self._batch_timer is None:
            self._start_timer()

    def on_finished(self, finished: Finished) -> None:
        """The engine ended the sequence."""
        if finished.reason is FinishReason.NO_MEMORY:
            self.fail(OutOfMemory(finished.error or "There is no memory for this request."))
        elif finished.reason is FinishReason.ERROR:
            self.fail(GenerationFailed(finished.error or "The sequence could not be evaluated."))
        else:
            self._end(finished.reason)

    def fail(self, error: EngineError) -> None:
        """End the sequence with an error."""
        if not self.ended:
            self._error = error
            self._settle()

    def _end(self, reason: FinishReason) -> None:
        if not self.ended:
            self._make_text()
            if text := self._detokenizer.finish():
                self._add(text)
            self._reason = reason
            self._settle()

    def _make_text(self) -> None:
        """Turn the tokens that have come into text. Timed here, which is once an event and not once a token."""
        if self._tokens:
            began = self._loop.time()
            if text := self._detokenizer.feed(self._tokens):
                self._add(text)
            if self._transcript is not None:
                self._transcript.follow(self._tokens)
            self._tokens.clear()
            self._detokenize += self._loop.time() - began

    def _add(self, text: str) -> None:
        self._text.append(text)
        self._shown += len(text)

    def _scores(self) -> list[Score]:
        """Those that the text so far calls for."""
        if self._transcript is None:
            return []
        whole = self._reason is not None and not self._detokenizer.stopped
        return self._transcript.rest() if whole else self._transcript.shown(self._shown)

    def _time_out(self) -> None:
        if not self.ended:
            self._cancel(self.id)
            self.fail(GenerationTimeout("The request took longer than the inference time limit."))

    def _regulate(self) -> None:
        """Tell the engine whether to go on, if that is not what it was told last."""
        paused = self._held or self._crowded
        if paused == self.paused or self.ended:
            return
        self.paused = paused
        self._resumed = self._loop.time()
        self._pause(self.id, paused)

    def _watch_tokens(self, seconds: float | None) -> None:
        if seconds is not None:
            self._token_timer = self._loop.call_later(seconds, self._check_tokens, seconds)

    def _check_tokens(self, limit: float) -> None:
        """See whether a token is overdue; the timer is not set anew with each token, which would cost more."""
        silent = 0.0 if self.paused else self._loop.time() - max(self.last_token_at or 0.0, self._resumed)
        if silent < limit:
            self._watch_tokens(limit - silent)
        elif not self.ended:
            self._cancel(self.id)
            self.fail(TokenTimeout(f"No token came for {limit:g} seconds."))

    def _settle(self) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        if self._token_timer is not None:
            self._token_timer.cancel()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _start_timer(self) -> None:
        self._batch_timer = self._loop.call_later(self._wait, self._wake)

    def _stop_timer(self) -> None:
        if self._batch_timer is not None:
            self._batch_timer.cancel()
            self._batch_timer = None
