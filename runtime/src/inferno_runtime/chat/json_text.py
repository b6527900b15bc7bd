"""Reads a JSON value as it arrives, and finds its end."""

import json
import re

from inferno_runtime.chat.reader import Reader, Say, Waiting

_CLOSING = {"{": "}", "[": "]"}
_SCALAR = re.compile(r"[-+.\w]*")
_PLAIN = re.compile(r'[^"{}\[\]]*')
_UNESCAPED = re.compile(r'[^"\\]*')
# Control characters have no place in a JSON string, and models write line ends there all the same.
_ESCAPES = {code: json.dumps(chr(code))[1:-1] for code in range(32)}


def value(reader: Reader, say: Say) -> Waiting[bool]:
    """Read a JSON value and hand it on as it comes. False where it ends too early, or cannot be one.

    It is looked at only as far as is needed to find its end: markers inside its strings mean nothing.
    """
    first = yield from reader.next()
    if first == '"':
        return (yield from _string(reader, say))
    if first in _CLOSING:
        return (yield from _container(reader, say))
    scalar = yield from reader.run(_SCALAR)
    say(scalar)
    return bool(scalar)


def _container(reader: Reader, say: Say) -> Waiting[bool]:
    open_ones: list[str] = []
    while True:
        char = yield from reader.next()
        if char == '"':
            if not (yield from _string(reader, say)):
                return False
        elif not char or (char in "]}" and open_ones.pop() != char):
            return False
        else:
            if char in _CLOSING:
                open_ones.append(_CLOSING[char])
            say(reader.take(1))
            if not open_ones:
                return True
        yield from reader.pass_on(_PLAIN, say)


def _string(reader: Reader, say: Say) -> Waiting[bool]:
    say(reader.take(1))
    while True:
        yield from reader.pass_on(_UNESCAPED, lambda text: say(text.translate(_ESCAPES)))
        if not (yield from reader.next()):
            return False
        mark = reader.take(1)
        if mark == '"':
            say(mark)
            return True
        if not (yield from reader.next()):
            return False
        say(mark + reader.take(1))
