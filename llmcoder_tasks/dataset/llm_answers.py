"""A language model's answer, item by item: what can be used, and what is refused and why.

Items are matched by their code, never by their place. One bad item never takes others with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.records import parse_code

_LENGTHS = (2, 600)  # characters, as the expectations ask


@dataclass
class CheckedAnswer:
    """Good variations by code, and how often what was refused."""

    variations: dict[str, list[str]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Guard:
    """What a variation may not be: the same rules as for those that LLMCoder writes itself.

    `code_by_name` says whose name a normalised text is (`naming.names_of`).
    """

    titles: Mapping[str, str]
    code_by_name: Mapping[str, str | None]

    def find_fault(self, code: str, text: object) -> str | None:
        """Why a text is no variation of a code's title, in a few words; None when it is one."""
        if not isinstance(text, str) or not text.isprintable():
            return "no plain text"
        if not _LENGTHS[0] <= len(text.strip()) <= _LENGTHS[1]:
            return "too short or too long"
        written = normalise_text(text)
        if written == normalise_text(self.titles[code]):
            return "the title itself"
        if self.code_by_name.get(written, code) != code:
            return "another code's name"
        if code in (parse_code(word.strip("()[],;:")) for word in text.split()):
            return "the code in the text"
        return None


def check_answer(text: str, asked: Mapping[str, int], guard: Guard) -> CheckedAnswer:
    """Read one answer. `asked` says how many variations of each code are wanted; more are left unread."""
    checked = CheckedAnswer()
    try:
        items = json.loads(text)["items"]
    except (ValueError, KeyError, TypeError):
        items = None
    if not isinstance(items, list):
        checked.refused["answer that is no JSON of the asked form"] += 1
        return checked
    for item in items:
        code = item.get("code") if isinstance(item, dict) else None
        if not isinstance(code, str) or not isinstance(item.get("variations"), list):
            checked.refused["malformed item"] += 1
        elif code not in asked:
            checked.refused["code that was not asked for"] += 1
        elif code in checked.variations:
            checked.refused["code answered twice"] += 1
        else:
            checked.variations[code] = _sift(code, item["variations"], asked[code], guard, checked.refused)
    checked.refused["code without an answer"] += len(asked.keys() - checked.variations.keys())
    return checked


def _sift(code: str, texts: list[Any], wanted: int, guard: Guard, refused: Counter[str]) -> list[str]:
    kept: dict[str, str] = {}
    for text in texts[:wanted]:
        fault = guard.find_fault(code, text)
        if fault is None and normalise_text(text) in kept:
            fault = "the same twice"
        if fault is None:
            kept[normalise_text(text)] = text.strip()
        else:
            refused[fault] += 1
    return list(kept.values())
