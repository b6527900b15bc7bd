"""Who holds which prefix: a radix tree over blocks of tokens.

A *holder* is whatever has the keys and values of a token sequence: a slot, or an entry of the store. The tree knows the
full blocks of each; what reaches beyond the last full block is compared token by token. What a token's keys and values
are follows from the adapter that they were computed with, too: each adapter has a tree of its own.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

BLOCK = 16  # tokens

H = TypeVar("H", bound=Hashable)


@dataclass(slots=True, eq=False)
class _Node(Generic[H]):
    parent: "_Node[H] | None"
    key: tuple[int, ...]
    children: "dict[tuple[int, ...], _Node[H]]" = field(default_factory=dict)
    holders: dict[H, None] = field(default_factory=dict)  # a set that keeps its order


class PrefixTree(Generic[H]):
    """Finds the holders of the longest prefix of a token sequence. Time is in the tokens, not in the holders."""

    def __init__(self) -> None:
        self._roots: dict[int, _Node[H]] = {}  # by adapter
        self._paths: dict[H, list[_Node[H]]] = {}  # a holder's nodes, root's child first

    def extend(self, holder: H, tokens: Sequence[int], length: int, adapter: int) -> None:
        """Have `holder` stand for the first `length` of `tokens`, which begin with what it stood for."""
        path = self._paths.setdefault(holder, [])
        node = path[-1] if path else self._root(adapter)
        for start in range(len(path) * BLOCK, length - length % BLOCK, BLOCK):
            key = tuple(tokens[start : start + BLOCK])
            child = node.children.get(key)
            if child is None:
                child = node.children[key] = _Node(node, key)
            child.holders[holder] = None
            path.append(child)
            node = child

    def cut(self, holder: H, length: int) -> None:
        """Forget what `holder` has beyond `length` tokens."""
        path = self._paths.get(holder, [])
        while len(path) > length // BLOCK:
            node = path.pop()
            del node.holders[holder]
            if not node.holders and not node.children and node.parent is not None:
                del node.parent.children[node.key]

    def remove(self, holder: H) -> None:
        """Forget a holder; one that is unknown is ignored."""
        self.cut(holder, 0)
        self._paths.pop(holder, None)

    def shared(self, holder: H) -> bool:
        """Whether another holder has all the full blocks that this one has."""
        path = self._paths.get(holder)
        return not path or len(path[-1].holders) > 1

    def longest(
        self,
        tokens: Sequence[int],
        adapter: int,
        held: Callable[[H], Sequence[int]],
        accept: Callable[[H], bool] = lambda _: True,
    ) -> tuple[int, H | None]:
        """The longest prefix of `tokens` that an acceptable holder has, and that holder; 0 and None without one.

        held: the tokens of a holder, to compare the last block by.
        """
        path = self._walk(self._root(adapter), tokens)
        for depth in range(len(path) - 1, -1, -1):
            best, found = -1, None
            for holder in path[depth].holders:
                if accept(holder):
                    length = common(tokens, held(holder), (depth + 1) * BLOCK, (depth + 2) * BLOCK)
                    if length > best:
                        best, found = length, holder
            if found is not None:
                return best, found
        return 0, None

    def _root(self, adapter: int) -> _Node[H]:
        root = self._roots.get(adapter)
        if root is None:
            root = self._roots[adapter] = _Node(None, ())
        return root

    def _walk(self, node: _Node[H], tokens: Sequence[int]) -> list[_Node[H]]:
        path = []
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            child = node.children.get(tuple(tokens[start : start + BLOCK]))
            if child is None:
                break
            path.append(child)
            node = child
        return path


def common(a: Sequence[int], b: Sequence[int], start: int, most: int) -> int:
    """How many tokens `a` and `b` have in common, `most` at most, when the first `start` are known to be."""
    end = min(len(a), len(b), most)
    while start < end and a[start] == b[start]:
        start += 1
    return start
