"""Grammars are compiled where one that explodes takes nothing with it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from inferno_runtime.engine.constraint import MAX_BYTES, Constraint, json_term, of_term
from inferno_runtime.worker.errors import GrammarRefused, ServerEnding
from inferno_runtime.worker.grammars import GrammarChecker, Vocabulary

GOOD = Constraint("start: /a+/")


class Dying(GrammarChecker):
    module = "tests.unit.worker.dying_compiler"


class Counting(GrammarChecker):
    """Counts what it compiles."""

    compiled = 0

    async def _compile(self, lark: str) -> str | None:
        self.compiled += 1
        return await super()._compile(lark)


def vocabulary() -> Vocabulary:
    return Vocabulary([*(bytes([byte]) for byte in range(256)), b"\xff<end>"], [256])


@asynccontextmanager
async def running(make: Callable[[Callable[[], Vocabulary]], GrammarChecker]) -> AsyncIterator[GrammarChecker]:
    checker = make(vocabulary)
    try:
        yield checker
    finally:
        await checker.stop()


async def error_of(checker: GrammarChecker, constraint: Constraint) -> str:
    with pytest.raises(GrammarRefused) as caught:
        await checker.check(constraint)
    return str(caught.value)


async def test_each_grammar_is_compiled_once() -> None:
    async with running(Counting) as checker:
        assert isinstance(checker, Counting)
        await asyncio.gather(*(checker.check(GOOD) for _ in range(5)))
        for _ in range(3):
            assert "unclosed" in await error_of(checker, Constraint("start: /[/"))
        assert checker.compiled == 2


@pytest.mark.parametrize(("lark", "words"), [("spin", "seconds to compile"), ("grow", "memory"), ("die", "memory")])
async def test_one_that_takes_too_much_costs_its_process_alone(lark: str, words: str) -> None:
    async with running(Dying) as checker:
        await checker.check(GOOD)
        assert words in await error_of(checker, Constraint(lark))
        assert words in await error_of(checker, Constraint(lark))  # and is remembered
        await checker.check(Constraint("start: /b/"))


async def test_a_caller_that_leaves_takes_its_answer_along() -> None:
    async with running(Dying) as checker:
        await checker.check(GOOD)
        task = asyncio.create_task(checker.check(Constraint("spin")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await checker.check(Constraint("start: /c/"))


async def test_who_waits_at_the_servers_end_is_told_so() -> None:
    async with running(Dying) as checker:
        await checker.check(GOOD)
        spinning = asyncio.create_task(checker.check(Constraint("spin")))
        queued = asyncio.create_task(checker.check(Constraint("start: /d/")))
        await asyncio.sleep(0)
        await checker.stop()
        for task in (spinning, queued):
            with pytest.raises(ServerEnding):
                await task


async def test_nothing_is_started_for_what_is_too_large() -> None:
    checker = GrammarChecker(lambda: pytest.fail("asked for its vocabulary"))
    assert str(MAX_BYTES) in await error_of(checker, Constraint("#" * (MAX_BYTES + 1)))


def nested(depth: int) -> object:
    schema: object = {"type": "string"}
    for level in range(depth):
        schema = {"anyOf": [schema, {"type": "array", "items": schema, "maxItems": level}]}
    return schema


def of_json(schema: object) -> Constraint:
    return of_term(json_term(schema))


NAMES = [f"property_{number}" for number in range(3000)]
DOUBLING = {
    "$defs": {
        "d0": {"type": "object"},
        **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2} for n in range(1, 40)},
    },
    "$ref": "#/$defs/d39",
}
PRODUCT = {
    "allOf": [
        {"anyOf": [{"properties": {f"a{i}_{j}": {"type": "integer"}}, "required": [f"a{i}_{j}"]} for j in range(6)]}
        for i in range(9)
    ]
}
EXPLOSIVE = {
    "nested quantifiers": "start: /((a+)+)+(b|a+)+c/",
    "counted repetitions": "start: /((((a{1,100}){1,100}){1,100}){1,100})/",
    "a huge count": "start: /a{1,100000000}/",
    "counted strings": "start: /(.{0,50000}x){0,50000}/",
    "a distant alternative": "start: /(.*a.{200}|.*b.{300}){9}/",
    "an intersection": "start: A\nA: /.*a.{18}b.*/ & /.*c.{19}d.*/ & ~/.*e.{17}f.*/",
    "counted rules": 'start: b{1,100000}\nb: a{1,100000}\na: "x" | "y"',
    "an ambiguous rule": 'start: e\ne: e e e | "a" |',
    "rules that double": "start: r0\n" + "\n".join(f"r{n}: r{n + 1} r{n + 1}" for n in range(60)) + '\nr60: "a"',
    "terminals that double": "start: R0\n" + "\n".join(f"R{n}: R{n + 1} R{n + 1}" for n in range(60)) + '\nR60: "a"',
    "many alternatives": "start: " + " | ".join(f"/[a-z]*{n}[a-z]*/" for n in range(4000)),
    "deep brackets": "start: /" + "(" * 40_000 + "a" + ")" * 40_000 + "/",
    "deep groups": "start: " + "(" * 40_000 + '"a"' + ")" * 40_000,
    "a deep schema": "start: %json " + '{"items":' * 10_000 + "{}" + "}" * 10_000,
    "deep anyOf": "start: %json " + json.dumps(nested(9)),
    "many properties": of_json({"properties": {name: {"type": "string"} for name in NAMES}}).lark,
    "many required properties": of_json({"required": NAMES}).lark,
    "references that double": of_json(DOUBLING).lark,
    "a product of alternatives": of_json(PRODUCT).lark,
    "a circle with siblings": of_json({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}).lark,
    "long strings": of_json({"type": "string", "minLength": 10**9, "maxLength": 2 * 10**9}).lark,
    "a long array": of_json({"type": "array", "minItems": 10**9, "items": {"minItems": 10**9}}).lark,
    "multiples": of_json({"type": "integer", "multipleOf": 1_000_003, "minimum": 7}).lark,
    "a pattern of a length": of_json({"type": "string", "pattern": "^(.*a.{20}){3}$", "maxLength": 500}).lark,
    "many values": of_json({"enum": [f"{n * 7919:06}" for n in range(10_000)]}).lark,
    "a long substring": "start: A\nA: %regex " + json.dumps({"substring_chars": "ab" * 50_000}),
}


async def test_nothing_that_explodes_takes_the_server_with_it() -> None:
    """Each is compiled or refused, by the compiler's own bounds or by the process's."""
    async with running(GrammarChecker) as checker:
        refused = {}
        for name, lark in EXPLOSIVE.items():
            try:
                await checker.check(Constraint(lark))
            except GrammarRefused as error:
                refused[name] = str(error)
        await checker.check(GOOD)
    assert len(refused) > 5
    assert all(1 <= len(error) <= 600 for error in refused.values())
