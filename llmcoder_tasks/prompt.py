"""How a text becomes a prompt and how codes become an answer, byte for byte: one place for training, judging and coding.

Three forms for weights of our own. `compact` is for a model trained from nothing on its own vocabulary: the prompt is the text in
lower case, and an answer is one token for the category and one for each further character. `chat` is for a pretrained language
model that answers in words; `instruct` is the same question inside the turns of the Llama 3 chat template, for a model that was
taught to converse. Messages are for a model behind a server: instructions and question apart, the answer as JSON of CODES_SCHEMA.

    compact   type 2 diabetes mellitus; gout<|answer|><|E11|><|.9|><|;|><|M10|><|.9|><|end|>
    chat      Diagnosis: Type 2 diabetes mellitus; gout\\nICD-10-CM codes: E11.9, M10.9
    instruct  <|start_header_id|>user<|end_header_id|>\\n\\nDiagnosis: ...\\nICD-10-CM codes:<|eot_id|>
              <|start_header_id|>assistant<|end_header_id|>\\n\\n E11.9, M10.9<|eot_id|>
    messages  Type 2 diabetes mellitus; gout        {"codes":["E11.9","M10.9"]}

A whole clinical note keeps its lines, on which its sections stand, and is asked about as `Clinical note:`.

A category that the compact vocabulary does not hold (a later release brought it) is written in single characters,
`<|.E|><|.1|><|.1|>`, so that every code of every release has an answer; the model learns to give it in its next training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, Literal, cast, get_args

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

INSTRUCTIONS = "Give the ICD-10-CM codes of the conditions that the text names, in order of mention."
"""Every line of training repeats it, and every one of its tokens is paid for: it is short."""

CODES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"codes": {"type": "array", "items": {"type": "string"}}},
    "required": ["codes"],
    "additionalProperties": False,
}
"""What an answer looks like. No list of codes, of which there are 74,719, and no pattern: servers compile each
other schema anew, and some take neither for models that they fine-tuned. What comes out is held against the release."""

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


def render_question(text: str) -> str:
    """What a model behind a server is asked of a text, beside INSTRUCTIONS: the text with its white space folded."""
    return " ".join(text.split())


def render_codes_json(codes: Sequence[str]) -> str:
    """The answer of a model behind a server: `{"codes":["E11.9","M10.9"]}`."""
    return json.dumps({"codes": [render_code(code) for code in codes]}, separators=(",", ":"))


def parse_codes_json(answer: str) -> tuple[str, ...] | None:
    """The codes of an answer, each once, in order: the inverse of `render_codes_json`; None where the answer has another form.

    Whether a code exists is not asked here.
    """
    try:
        codes = json.loads(answer)["codes"]
        return tuple(dict.fromkeys(code for code in map(parse_code, codes) if code))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def render_training_line(text: str, codes: Sequence[str]) -> str:
    """One line of a training file in the chat format, as servers that fine-tune take it."""
    messages = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": render_question(text)},
        {"role": "assistant", "content": render_codes_json(codes)},
    ]
    return json.dumps({"messages": messages}, ensure_ascii=False)


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
