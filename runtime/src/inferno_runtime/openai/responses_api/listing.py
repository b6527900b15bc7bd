"""Pages of a list of items."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferno_runtime.openai import errors
from inferno_runtime.openai.responses_api.items import Kept


class Page(msgspec.Struct, frozen=True):
    """Which part of a list is wanted. after: the id of the item before it."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "Page":
        """That of a query, in which an empty value is none. Raises `ApiError`."""
        try:
            return msgspec.convert({name: value for name, value in given.items() if value}, type=cls, strict=False)
        except msgspec.ValidationError as error:
            param = str(error).rpartition("$.")[2].rstrip("`")
            raise errors.bad_request(f"Invalid '{param}': {error}.", param) from error


def page_of(items: Sequence[Kept], page: Page) -> dict[str, Any]:
    """The part of a list. Raises `ApiError` where `after` is none of it."""
    ordered = list(items) if page.order == "asc" else list(reversed(items))
    start = 0
    if page.after:
        places = [number for number, item in enumerate(ordered) if item["id"] == page.after]
        if not places:
            raise errors.bad_request(f"'after' names '{page.after[:64]}', which is no item of this response.", "after")
        start = places[0] + 1
    shown = ordered[start : start + page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + page.limit < len(ordered),
    }
