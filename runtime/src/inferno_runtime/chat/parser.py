"""Reads a model's answer, piece by piece, as what it says."""

from collections.abc import Callable

from inferno_runtime.chat.dialects.base import Answer, Dialect, Thinking
from inferno_runtime.chat.events import Event
from inferno_runtime.chat.reader import Reader, Waiting
from inferno_runtime.chat.speech import Speech, new_call_id
from inferno_runtime.chat.tools import NO_TOOLS, Toolbox


class Parser:
    """The parser of one answer. However its text is cut into pieces, the events say the same."""

    def __init__(
        self,
        dialect: Dialect,
        toolbox: Toolbox = NO_TOOLS,
        thinking: Thinking | None = None,
        *,
        thinks: bool = False,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        """thinking: how the model marks its reasoning, if it does; thinks: whether the prompt ended within it."""
        self._reader = Reader()
        self._speech = Speech(new_id)
        self._reading: Waiting[None] | None = self._read(dialect, toolbox, thinking, thinks)

    def feed(self, text: str) -> list[Event]:
        """What is certain after more text."""
        if text:
            self._reader.feed(text)
            self._go_on()
        return self._speech.drain()

    def finish(self, *, cut: bool) -> list[Event]:
        """What is left. cut: whether the text might have gone on, had there been no limit."""
        self._reader.end(cut=cut)
        self._go_on()
        self._speech.finish()
        return self._speech.drain()

    @property
    def called(self) -> bool:
        """Whether there was a call so far."""
        return self._speech.calls > 0

    def _read(self, dialect: Dialect, toolbox: Toolbox, thinking: Thinking | None, thinks: bool) -> Waiting[None]:
        answer = Answer(self._reader, self._speech, toolbox, thinking)
        if thinking is not None and thinks:
            yield from answer.think_until(thinking.closing)
        if toolbox.callable or dialect.speaks:
            yield from dialect.read(answer)
        else:
            yield from answer.text_until()

    def _go_on(self) -> None:
        if self._reading is not None:
            try:
                next(self._reading)
            except StopIteration:
                self._reading = None
