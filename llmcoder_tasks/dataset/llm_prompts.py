"""The prompts of `prompts/`, one a scenario, and the forms of question and answer around them.

Only codes and titles of a public release are sent. Patient text never is: nothing here can reach it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPTS_FOLDER = Path(__file__).parent / "prompts"

ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"code": {"type": "string"}, "variations": {"type": "array", "items": {"type": "string"}}},
                "required": ["code", "variations"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["items"],
    "additionalProperties": False,
}
"""What an answer looks like, as the server is told; `llm_answers` does not trust it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The instructions of one scenario."""

    scenario: str
    text: str

    @property
    def sha256(self) -> str:
        """Fingerprint of all that the model is told beside the titles."""
        return hashlib.sha256(json.dumps([self.text, ANSWER_SCHEMA]).encode()).hexdigest()


def load_prompt(scenario: str) -> Prompt:
    """The prompt of a scenario of `LLM_SCENARIOS`."""
    return Prompt(scenario, (PROMPTS_FOLDER / f"{scenario}.md").read_text(encoding="utf-8"))


def render_question(titles: Mapping[str, str], wanted: int) -> str:
    """The question about some codes: `{"wanted": 2, "titles": [{"code": "I10", "title": "Essential ..."}]}`."""
    return json.dumps(
        {"wanted": wanted, "titles": [{"code": code, "title": title} for code, title in titles.items()]}, ensure_ascii=False
    )
