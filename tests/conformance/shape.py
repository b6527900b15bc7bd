"""Whether an answer looks like the documented one."""

from typing import Any

_FIXED = {"object", "type", "role", "owned_by", "parent", "param", "code"}  # what the document shows is what there is


def assert_like(actual: Any, documented: Any, where: str = "the answer") -> None:
    """Every field that is documented is there and has the documented type; there may be more."""
    if isinstance(documented, dict):
        assert isinstance(actual, dict), where
        for name, value in documented.items():
            assert name in actual, f"{where} has no {name}"
            if name in _FIXED:
                assert actual[name] == value, f"{where}.{name}"
            assert_like(actual[name], value, f"{where}.{name}")
    elif isinstance(documented, list):
        assert isinstance(actual, list), where
        for index, item in enumerate(actual if documented else ()):
            assert_like(item, documented[0], f"{where}[{index}]")
    elif isinstance(documented, float):
        assert isinstance(actual, (int, float)), where
    else:
        assert type(actual) is type(documented), where
