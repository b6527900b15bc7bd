"""Which files of a store a source means, and what they are called in the model's folder."""

import re
from collections.abc import Iterable, Sequence

from inferno_runtime.fetch.errors import BadSource
from inferno_runtime.sources import is_hidden, split_parts


def chosen(paths: Iterable[str], wanted: str, names: Sequence[str]) -> dict[str, str]:
    """The paths in the store by their names in the model's folder.

    ``wanted`` is a folder (it ends with ``/``, or is empty for all) or a path with ``*``; ``names`` picks files of a
    folder, and may have ``*`` too. ``*`` stands for anything but ``/``. Raises `BadSource`.
    """
    paths = sorted(path for path in paths if _is_plain(path))
    if wanted == "" or wanted.endswith("/"):
        inside = {path.removeprefix(wanted): path for path in paths if path.startswith(wanted)}
        if not names:
            return {name: path for name, path in inside.items() if not is_hidden(name)}
        patterns = [_pattern(name) for name in names]
        return {name: path for name, path in inside.items() if any(pattern.match(name) for pattern in patterns)}
    pattern = _pattern(wanted)
    matching = [path for path in paths if pattern.match(path)]
    found = {path.rpartition("/")[2]: path for path in matching}
    if len(found) != len(matching):
        raise BadSource(f"{wanted} matches files of the same name in several folders")
    firsts = {(split_parts(name) or [name])[0] for name in found if name.endswith(".gguf")}
    if len(firsts) > 1:
        raise BadSource(f"{wanted} matches several models: {', '.join(sorted(firsts)[:4])}; name one of them")
    return found


def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile("[^/]*".join(map(re.escape, glob.split("*"))) + r"\Z")


def _is_plain(path: str) -> bool:
    """Whether a path of the store's may be one of ours: what would lead out of the folder is nobody's model."""
    parts = path.split("/")
    return bool(path) and not {"", ".", ".."} & set(parts) and not any(ord(letter) < 0x20 for letter in path)
