"""The tree of the codes that may come out: greedy decoding over it cannot write a code that the release does not hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from llmcoder_tasks.errors import ModelError

if TYPE_CHECKING:
    from llmcoder_tasks.model.tokenizer import AnswerTokenizer

ROOT = 0


class CodeTrie:
    """A prefix tree over the token ids of codes.

    After a whole code comes the end, or, where an answer may hold several codes, the separator, which leads to the root.
    """

    def __init__(self, children: list[dict[int, int]], ends: frozenset[int], *, after_code: tuple[int, ...]) -> None:
        self._children = children
        self._ends = ends
        self._after_code = after_code
        self._allowed: dict[int, list[int]] = {}  # as they are asked for

    @classmethod
    def build(cls, codes: Iterable[str], tokenizer: AnswerTokenizer) -> CodeTrie:
        """The tree of `codes` (without dots) in a model's tokens. Raises ModelError when there are none."""
        children: list[dict[int, int]] = [{}]
        ends: set[int] = set()
        for code in codes:
            node = ROOT
            for token in tokenizer.encode_code(code):
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                node = children[node][token]
            ends.add(node)
        if not ends:
            raise ModelError("a tree of codes needs at least one code: is the release loaded?")
        several = tokenizer.settings.conditions_per_answer == "several"
        after_code = (tokenizer.separator_id, tokenizer.end_id) if several else (tokenizer.end_id,)
        return cls(children, frozenset(ends), after_code=after_code)

    def allowed(self, node: int) -> list[int]:
        """Token ids that may follow. Not to be changed by the caller."""
        known = self._allowed.get(node)
        if known is None:
            following = list(self._children[node])
            known = self._allowed[node] = [*following, *self._after_code] if node in self._ends else following
        return known

    def advance(self, node: int, token: int) -> int:
        """The node after an allowed token; the separator and the end lead to the root."""
        return self._children[node].get(token, ROOT)

    def __len__(self) -> int:
        return len(self._ends)
