"""A pretrained language model from a folder of weights, asked in this process. Import it lazily: it imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from llmcoder_tasks.errors import ModelError, QuestionRefused
from llmcoder_tasks.language_model import Answer

ANSWER_TOKENS = 1024
"""Room for some forty diagnoses."""


class LocalChat:
    """Answers greedily, on the GPU when there is one. The form of an answer rests on the instructions alone."""

    def __init__(self, model: Any, tokenizer: Any, *, answer_tokens: int = ANSWER_TOKENS) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._answer_tokens = answer_tokens
        self._one_at_a_time = Lock()

    @classmethod
    def load(cls, folder: Path) -> LocalChat:
        """Load safetensors and a tokenizer; no code of the folder is run. Raises ModelError."""
        transformers_logging.disable_progress_bar()
        has_gpu = torch.cuda.is_available()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype="auto" if has_gpu else torch.float32
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{folder} cannot be loaded as a language model ({type(error).__name__})") from None
        return cls(model.to("cuda" if has_gpu else "cpu"), tokenizer)

    def ask(self, instructions: str, question: str, schema: Mapping[str, Any], *, seed: int) -> Answer:
        """The answer to a question, by the tokenizer's chat template where it has one. Greedy: `schema` and `seed` change nothing.

        Raises QuestionRefused where the question and room for an answer are more than the model's context.
        """
        prompt = self._encode(instructions, question)
        context = getattr(self._model.config, "max_position_embeddings", None)
        if context is not None and prompt.shape[1] + self._answer_tokens > context:
            raise QuestionRefused(f"a question of {prompt.shape[1]:,} tokens leaves no room for an answer in {context:,}")
        with self._one_at_a_time, torch.inference_mode():
            output = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self._answer_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.eos_token_id,
            )
        said = output[0, prompt.shape[1] :]
        return Answer(self._tokenizer.decode(said, skip_special_tokens=True), prompt.shape[1], len(said))

    def _encode(self, instructions: str, question: str) -> torch.Tensor:
        if self._tokenizer.chat_template:
            messages = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            ids = self._tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        else:
            ids = self._tokenizer(f"{instructions}\n{question}\n\nJSON:\n", return_tensors="pt")["input_ids"]
        return ids.to(self._model.device)
