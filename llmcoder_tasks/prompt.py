"""How a text becomes a prompt and how codes become an answer, byte for byte: one place for training, judging and coding.

Three forms. `compact` is for a model trained from nothing on its own vocabulary: the prompt is the text in lower case, and an
answer is one token for the category and one for each further character. `chat` is for a pretrained language model that answers in
words; `instruct` is the same question inside the turns of the Llama 3 chat template, for a model that was taught to converse.

    compact   type 2 diabetes mellitus; gout<|answer|><|E11|><|.9|><|;|><|M10|><|.9|><|end|>
    chat      Diagnosis: Type 2 diabetes mellitus; gout\\nICD-10-CM codes: E11.9, M10.9
    instruct  <|start_header_id|>user<|end_header_id|>\\n\\nDiagnosis: ...\\nICD-10-CM codes:<|eot_id|>
              <|start_header_id|>assistant<|end_header_id|>\\n\\n E11.9, M10.9<|eot_id|>

A whole clinical note keeps its lines, on which its sections stand, and is asked about as `Clinical note:`.

A category that the compact vocabulary does not hold (a later release brought it) is written in single characters,
`<|.E|><|.1|><|.1|>`, so that every code of every release has an answer; the model learns to give it in its next training.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal, cast, get_args

from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.records import parse_code, render_code

PromptForm = Literal["compact", "chat", "instruct"]
PROMPT_FORMS: tuple[PromptForm, ...] = ("compact", "chat", "instruct")

TextKind = Literal["phrase", "note"]

ConditionsPerAnswer = Literal["one", "several"]
"""A model answers one condition at a time, so that a line of several is cut before it is asked, or it lists all codes itself."""

ANSWER_MARK = "<|answer|>"
SEPARATOR = {"compact": "<|;|>", "chat": ",", "instruct": ","}
END = "<|end|>"
CODE_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_CATEGORY_LENGTH = 3
_PIECE = re.compile(r"<\|(?:\.(?P<character>[0-9A-Z])|(?P<category>[0-9A-Z]{3}))\|>")


TURNS = {"instruct": ("<|start_header_id|>", "user", "<|end_header_id|>", "\n\n"), "chat": (), "compact": ()}
"""What stands before a prompt: special tokens and texts by turns, each encoded for itself."""

ANSWER_TURN = {
    "instruct": ("<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"),
    "chat": (),
    "compact": (ANSWER_MARK,),
}
"""What stands between a prompt and its answer, likewise."""

_QUESTION = "\nICD-10-CM codes:"


def render_prompt(text: str, form: PromptForm, kind: TextKind = "phrase") -> str:
    """The prompt of a text, without what surrounds it (`TURNS`, `ANSWER_TURN`).

    White space is folded, in a note within its lines alone; the compact form has no capitals and knows no notes.
    """
    if kind == "note" and form != "compact":
        lines = (" ".join(line.split()) for line in text.splitlines())
        return "Clinical note:\n" + "\n".join(line for line in lines if line) + question_of(form)
    folded = " ".join(text.split())
    return folded.lower() if form == "compact" else f"Diagnosis: {folded}{question_of(form)}"


def question_of(form: PromptForm) -> str:
    """The end of a prompt, which stays when a text is cut."""
    return "" if form == "compact" else _QUESTION


def category_piece(category: str) -> str:
    """The compact vocabulary's name of a category: `<|E11|>`."""
    return f"<|{category}|>"


def character_piece(character: str) -> str:
    """The compact vocabulary's name of one further character of a code: `<|.9|>`."""
    return f"<|.{character}|>"


def render_code_pieces(code: str, form: PromptForm, vocabulary: Collection[str] = ()) -> list[str]:
    """The pieces of one code in an answer. `vocabulary` holds the pieces that the compact model knows."""
    if form != "compact":
        return [f" {render_code(code)}"]
    category = category_piece(code[:_CATEGORY_LENGTH])
    if category in vocabulary:
        return [category, *map(character_piece, code[_CATEGORY_LENGTH:])]
    return [character_piece(character) for character in code]


def render_answer(codes: Sequence[str], form: PromptForm, vocabulary: Collection[str] = ()) -> str:
    """The answer for several codes, without the mark that ends it."""
    return SEPARATOR[form].join("".join(render_code_pieces(code, form, vocabulary)) for code in codes)


def parse_answer(answer: str, form: PromptForm) -> tuple[str, ...]:
    """The codes of an answer, each once, in order: the inverse of `render_answer`.

    A model may write anything: what is no piece of a code is left out, and whether a code exists is not asked here.
    """
    parts = answer.partition(END)[0].split(SEPARATOR[form])
    codes = map(_parse_compact_code if form == "compact" else parse_code, parts)
    return tuple(dict.fromkeys(code for code in codes if code))


def verify_conditions_per_answer(value: str) -> ConditionsPerAnswer:
    """Return `value` when it is `one` or `several`. Raises ModelError."""
    for known in get_args(ConditionsPerAnswer):
        if value == known:
            return cast(ConditionsPerAnswer, known)
    raise ModelError(f"conditions_per_answer is {value!r}: expected one or several")


def _parse_compact_code(part: str) -> str:
    return "".join(match["character"] or match["category"] for match in _PIECE.finditer(part))


def verify_form(form: str) -> PromptForm:
    """Return `form` when it is one of PROMPT_FORMS. Raises ModelError."""
    for known in PROMPT_FORMS:
        if form == known:
            return known
    raise ModelError(f"{form!r} is no prompt form: expected one of {', '.join(PROMPT_FORMS)}")
