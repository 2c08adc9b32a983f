"""Texts and codes to token ids and back, for both prompt forms. A leaf: it imports `tokenizers` only (0.1 s, no torch).

The compact vocabulary is trained here: byte-level BPE whose merges may begin with a comma and a space (`, initial` is one token),
then the answer tokens in one block at the end: mark, separator, end, 36 characters and every category of the release.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.prompt import (
    ANSWER_MARK,
    ANSWER_TURN,
    CODE_CHARACTERS,
    END,
    SEPARATOR,
    TURNS,
    ConditionsPerAnswer,
    PromptForm,
    TextKind,
    category_piece,
    character_piece,
    parse_answer,
    question_of,
    render_code_pieces,
    render_prompt,
    verify_conditions_per_answer,
    verify_form,
)

TOKENIZER_NAME = "tokenizer.json"
PROMPT_NAME = "prompt.json"

# A word takes the comma, the space or both before it, so that titles, which are full of ", initial encounter", stay short.
_PIECES = Regex(r"(?:,? )?\p{L}+|(?:,? )?\p{N}+|[^\p{L}\p{N}]")


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """What a model folder says about its prompts. `context_tokens` hold prompt and answer, `answer_tokens` of them the answer."""

    form: PromptForm
    context_tokens: int
    answer_tokens: int
    end_token: str
    conditions_per_answer: ConditionsPerAnswer = "several"
    reads_notes: bool = False  # it learnt whole notes: a text of several lines is asked about as one

    @classmethod
    def read(cls, folder: Path) -> PromptSettings:
        """Read `prompt.json`. Raises ModelError when it is missing or malformed."""
        try:
            facts = json.loads((folder / PROMPT_NAME).read_text(encoding="utf-8"))
            context, answer = int(facts["context_tokens"]), int(facts["answer_tokens"])
            conditions = verify_conditions_per_answer(facts.get("conditions_per_answer", "several"))
            reads_notes = bool(facts.get("reads_notes", False))
            return cls(verify_form(facts["form"]), context, answer, str(facts["end_token"]), conditions, reads_notes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{folder / PROMPT_NAME} cannot be read ({type(error).__name__}): train the model again") from None

    def write(self, folder: Path) -> None:
        """Write `prompt.json`."""
        (folder / PROMPT_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


class AnswerTokenizer:
    """A tokenizer that knows prompts and answers."""

    def __init__(self, tokenizer: Tokenizer, settings: PromptSettings) -> None:
        # Special tokens inside a text are letters like others: a discharge summary cannot end the prompt.
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.settings = settings
        self._tokenizer = tokenizer
        self._vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self.end_id = self._id_of(settings.end_token)
        separator = self._ids_of_pieces([SEPARATOR[settings.form]])
        if len(separator) != 1:
            raise ModelError(f"the separator {SEPARATOR[settings.form]!r} is {len(separator)} tokens here: expected one")
        self.separator_id = separator[0]
        self._before = self._ids_of_turn(TURNS[settings.form])
        self._after = self._ids_of_turn(ANSWER_TURN[settings.form])
        self._question = self._ids_of_text(question_of(settings.form))
        # What the tokenizer itself puts before every text: a pretrained Llama's `<|begin_of_text|>`.
        self._begin: list[int] = tokenizer.encode("", add_special_tokens=True).ids
        self._code_ids: dict[str, tuple[int, ...]] = {}

    @classmethod
    def load(cls, folder: Path) -> AnswerTokenizer:
        """Read the tokenizer of a model folder. Raises ModelError."""
        settings = PromptSettings.read(folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_NAME))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"{folder / TOKENIZER_NAME} cannot be read: {error}") from None
        return cls(tokenizer, settings)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        codes: Iterable[str],
        *,
        text_vocabulary: int,
        context_tokens: int,
        answer_tokens: int,
        conditions_per_answer: ConditionsPerAnswer = "several",
    ) -> AnswerTokenizer:
        """A compact vocabulary from texts and from the categories of codes. The same input gives the same bytes."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(_PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=text_vocabulary, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
        )
        tokenizer.train_from_iterator((render_prompt(text, "compact") for text in texts), trainer)
        categories = sorted({code[:3] for code in codes})
        answer = [ANSWER_MARK, SEPARATOR["compact"], END]
        answer += [*map(character_piece, CODE_CHARACTERS), *map(category_piece, categories)]
        tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in answer])
        return cls(tokenizer, PromptSettings("compact", context_tokens, answer_tokens, END, conditions_per_answer))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `prompt.json`."""
        self._tokenizer.save(str(folder / TOKENIZER_NAME))
        self.settings.write(folder)

    @property
    def size(self) -> int:
        """Number of token ids."""
        return max(self._vocabulary.values()) + 1

    @property
    def first_answer_id(self) -> int:
        """The first id of the block of answer tokens; 0 where answers are plain text."""
        return self._after[0] if self.settings.form == "compact" else 0

    @property
    def first_category_id(self) -> int:
        """The first id of the categories, which end the block of answer tokens; 0 where answers are plain text."""
        return self.first_answer_id + 3 + len(CODE_CHARACTERS) if self.first_answer_id else 0

    def kind_of(self, text: str) -> TextKind:
        """What this model takes a text for."""
        return "note" if self.settings.reads_notes and len(text.strip().splitlines()) > 1 else "phrase"

    def encode_texts(self, texts: Sequence[str], kinds: Sequence[TextKind]) -> tuple[list[list[int]], int]:
        """`encode_prompts` for texts of both kinds."""
        found: list[list[int]] = [[]] * len(texts)
        cut = 0
        for kind in set(kinds):
            chosen = [number for number, of_text in enumerate(kinds) if of_text == kind]
            prompts, cut_here = self.encode_prompts([texts[number] for number in chosen], kind)
            cut += cut_here
            for number, prompt in zip(chosen, prompts, strict=True):
                found[number] = prompt
        return found, cut

    def encode_prompts(self, texts: Sequence[str], kind: TextKind = "phrase") -> tuple[list[list[int]], int]:
        """Token ids of each prompt up to where the answer begins, and how many texts were cut to leave room for it.

        A text that is too long keeps its beginning, and the question behind it.
        """
        prompts = [render_prompt(text, self.settings.form, kind) for text in texts]
        before = [*self._begin, *self._before]
        limit = self.settings.context_tokens - self.settings.answer_tokens - len(before) - len(self._after)
        cut = 0
        encoded = []
        for encoding in self._tokenizer.encode_batch_fast(prompts, add_special_tokens=False):
            ids = encoding.ids
            if len(ids) > limit:
                cut += 1
                ids = ids[: limit - len(self._question)] + self._question
            encoded.append([*before, *ids, *self._after])
        return encoded, cut

    def encode_code(self, code: str) -> tuple[int, ...]:
        """Token ids of one code inside an answer."""
        ids = self._code_ids.get(code)
        if ids is None:
            ids = tuple(self._ids_of_pieces(render_code_pieces(code, self.settings.form, self._vocabulary)))
            self._code_ids[code] = ids
        return ids

    def encode_answer(self, codes: Sequence[str]) -> list[int]:
        """Token ids of a whole answer, the end included.

        A model of one condition answers a text of several with nothing: so it learns where a text has to be cut.
        """
        if len(codes) > 1 and self.settings.conditions_per_answer == "one":
            return [self.end_id]
        ids: list[int] = []
        for code in codes:
            ids += self.encode_code(code)
            ids.append(self.separator_id)
        return [*ids[:-1], self.end_id]

    def decode_answer(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The codes in generated token ids, up to the end. They need not exist in any release."""
        kept = list(_until(ids, self.end_id))
        if self.settings.form == "compact":
            return parse_answer("".join(str(self._tokenizer.id_to_token(token)) for token in kept), "compact")
        return parse_answer(self._tokenizer.decode(kept), self.settings.form)

    def _id_of(self, piece: str) -> int:
        if piece not in self._vocabulary:
            raise ModelError(f"the tokenizer has no token {piece!r}: it does not belong to this model")
        return self._vocabulary[piece]

    def _ids_of_pieces(self, pieces: Sequence[str]) -> list[int]:
        if self.settings.form == "compact":
            return [self._id_of(piece) for piece in pieces]
        return [token for piece in pieces for token in self._ids_of_text(piece)]

    def _ids_of_turn(self, pieces: Sequence[str]) -> list[int]:
        """Special tokens by their names, texts between them as texts: as the library splits a whole rendered template."""
        return [
            token for piece in pieces for token in ([self._id_of(piece)] if piece.startswith("<|") else self._ids_of_text(piece))
        ]

    def _ids_of_text(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _until(ids: Sequence[int], end: int) -> Iterator[int]:
    for token in ids:
        if token == end:
            return
        yield token
