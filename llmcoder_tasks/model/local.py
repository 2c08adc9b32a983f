"""A model folder, loaded into this process: the local backend. Import it lazily: it imports torch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.model.backend import Answer
from llmcoder_tasks.model.decoding import CandidateTree, Room, batch_by_length, decode_greedy, score_candidates
from llmcoder_tasks.model.llama import AnswerLlama
from llmcoder_tasks.model.quantization import load_quantized
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.model.trie import CodeTrie
from llmcoder_tasks.prompt import ConditionsPerAnswer, TextKind

logger = logging.getLogger(__name__)

NODES_ON_CPU = 128
NODES_ON_GPU = 2048
"""How many tokens of candidates are scored together: fewer waste less in a last, half-empty group, more amortise calls."""


class LocalModel:
    """A trained Llama with its tokenizer, on the GPU when there is one, else on `threads` CPU threads."""

    def __init__(self, model: AnswerLlama, tokenizer: AnswerTokenizer) -> None:
        self.tokenizer = tokenizer
        self._model = model.eval()

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> LocalModel:
        """Load a model folder (safetensors only), in as few bits as its recipe says. Raises ModelError.

        `threads` is torch's number of threads in this whole process. One is best where several workers share a machine: waiting
        OpenMP threads spin.
        """
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()
        tokenizer = AnswerTokenizer.load(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            bits = getattr(AnswerLlama.config_class.from_pretrained(folder), "inference_bits", None)
            if bits is not None:
                model = load_quantized(folder, bits, computing=torch.bfloat16 if device == "cuda" else torch.float32)
            else:
                dtype = "auto" if device == "cuda" else torch.float32
                model = AnswerLlama.from_pretrained(folder, dtype=dtype, use_safetensors=True).to(device)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{folder} cannot be loaded as a Llama: {str(error).splitlines()[0]}") from None
        if model.config.vocab_size < tokenizer.size:
            raise ModelError(f"{folder}: the weights know {model.config.vocab_size} tokens, the tokenizer {tokenizer.size}")
        return cls(model, tokenizer)

    @classmethod
    def untrained(cls, folder: Path, *, seed: int = 0, threads: int = 1) -> LocalModel:
        """The architecture and the vocabulary of a model folder with fresh random weights: what training starts from."""
        torch.set_num_threads(threads)
        tokenizer = AnswerTokenizer.load(folder)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AnswerLlama(AnswerLlama.config_class.from_pretrained(folder))
        return cls(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)

    @property
    def conditions_per_answer(self) -> ConditionsPerAnswer:
        """What its training was told."""
        return self.tokenizer.settings.conditions_per_answer

    def allow(self, codes: Iterable[str]) -> CodeTrie:
        """The tree of codes that may come out."""
        return CodeTrie.build(codes, self.tokenizer)

    def predict(
        self, texts: Sequence[str], *, trie: CodeTrie | None, batch_size: int = 128, kind: TextKind | None = None
    ) -> list[tuple[str, ...]]:
        """The codes of each text, greedily, each once, in the order of the answer; several where the text names several conditions.

        With a trie (`CodeTrie.build(codes, model.tokenizer)`) every code is one of its codes; without, the model may write codes
        that do not exist. A text too long for the model keeps its beginning. A code that is not finished when the answer's room
        ends is left out. `kind` is what the texts are; None: texts of several lines are notes to a model that learnt some.
        """
        return [answer.codes for answer in self.answer(texts, trie=trie, batch_size=batch_size, kind=kind)]

    def answer(
        self, texts: Sequence[str], *, trie: CodeTrie | None, batch_size: int = 128, kind: TextKind | None = None
    ) -> list[Answer]:
        """What `predict` says, with how sure the model is."""
        prompts = self._encode(texts, kind)
        found = [Answer((), 0.0)] * len(texts)
        on_gpu = self._model.device.type == "cuda"
        for rows in batch_by_length([len(prompt) for prompt in prompts], batch_size, about=on_gpu):
            with torch.inference_mode():
                answers, log_probabilities = decode_greedy(
                    self._model,
                    [prompts[row] for row in rows],
                    trie=trie,
                    end_id=self.tokenizer.end_id,
                    max_answer_tokens=self.tokenizer.settings.answer_tokens,
                )
            for row, answer, log_probability in zip(rows, answers, log_probabilities, strict=True):
                found[row] = Answer(self.tokenizer.decode_answer(self._whole_codes(answer)), log_probability)
        return found

    def score(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log-probability (natural) that the answer to a text begins with each candidate code, in the candidates' order.

        No billable code is the beginning of another one: what may follow a whole code (the end, or a further code) is not asked.
        The prompt and the shared beginnings of candidates are computed once. Neither the company of a text nor its place in it
        change a bit of its scores.
        """
        prompts = self._encode(texts)
        trees = [CandidateTree.build([self.tokenizer.encode_code(code) for code in of_text]) for of_text in candidates]
        most_nodes = NODES_ON_CPU if self._model.device.type == "cpu" else NODES_ON_GPU
        rooms: dict[Room, list[int]] = {}
        for row, (prompt, tree) in enumerate(zip(prompts, trees, strict=True)):
            rooms.setdefault(Room.of(prompt, tree, most_nodes), []).append(row)
        scores: list[list[float]] = [[] for _ in texts]
        for room, inside in rooms.items():
            for start in range(0, len(inside), room.texts):
                rows = inside[start : start + room.texts]
                with torch.inference_mode():
                    found = score_candidates(self._model, room, [prompts[row] for row in rows], [trees[row] for row in rows])
                for row, values in zip(rows, found, strict=True):
                    scores[row] = values
        return scores

    def _encode(self, texts: Sequence[str], kind: TextKind | None = None) -> list[list[int]]:
        prompts, cut = self.tokenizer.encode_texts(texts, [kind or self.tokenizer.kind_of(text) for text in texts])
        if cut:
            logger.warning("%d of %d texts are longer than the model's context: their beginnings are used", cut, len(texts))
        return prompts

    def _whole_codes(self, answer: list[int]) -> list[int]:
        """An answer that did not come to its end, without its last, unfinished code."""
        if answer and answer[-1] == self.tokenizer.end_id:
            return answer
        while answer and answer[-1] != self.tokenizer.separator_id:
            answer = answer[:-1]
        return answer
