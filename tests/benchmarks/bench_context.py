"""Our context rules and medspaCy's ConText on the same sentences of tests/coding/context_sentences.tsv.

    python -m venv ELSEWHERE && ELSEWHERE/bin/pip install medspacy==1.3.1
    PYTHONPATH=. ELSEWHERE/bin/python tests/benchmarks/bench_context.py

medspaCy cannot be installed beside LLMCoder's pins; our rules need nothing but Python, so both run in medspaCy's environment.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmcoder_tasks.coding.context import assess_mentions, split_sentences

SENTENCES = Path(__file__).resolve().parents[1] / "coding" / "context_sentences.tsv"
COARSE = {"planned": "hypothetical", "resolved": "historical", "ruled_out": "negated"}
LABELS = ("present", "negated", "possible", "family", "hypothetical", "historical")

Row = tuple[str, str, str]


def assess_ours(rows: Sequence[Row]) -> list[str]:
    """The answer of our rules for each row."""
    answers = []
    for text, name, _ in rows:
        start = text.index(name)
        (sentence,) = [part for part in split_sentences(text, 0, len(text)) if part.start <= start < part.end]
        answers += assess_mentions(text, sentence, [(start, start + len(name))])
    return [str(answer) for answer in answers]


def open_medspacy() -> Callable[[Sequence[Row]], list[str]]:
    """medspaCy with its own sentence splitter and its own English rules; where several modifiers hold, our order decides."""
    import medspacy  # only in an environment of its own
    from loguru import logger

    logger.disable("PyRuSH")  # it writes several lines for each sentence
    nlp: Any = medspacy.load(medspacy_enable=["medspacy_pyrush", "medspacy_context"])

    def assess(rows: Sequence[Row]) -> list[str]:
        return [_assess_by_medspacy(nlp, text, name) for text, name, _ in rows]

    return assess


def _assess_by_medspacy(nlp: Any, text: str, name: str) -> str:
    document = nlp.make_doc(text)
    for part, pipe in nlp.pipeline:
        if part == "medspacy_context":
            start = text.index(name)
            document.ents = [document.char_span(start, start + len(name), label="PROBLEM", alignment_mode="expand")]
        document = pipe(document)
    said = document.ents[0]._
    flags = (
        (said.is_negated, "negated"),
        (said.is_family, "family"),
        (said.is_hypothetical, "hypothetical"),
        (said.is_historical, "historical"),
        (said.is_uncertain, "possible"),
    )
    return next((label for flag, label in flags if flag), "present")


def print_scores(system: str, rows: Sequence[Row], assess: Callable[[Sequence[Row]], list[str]]) -> None:
    """Right answers by what a sentence says, and precision, recall and F1 of the coarse answers."""
    began = time.process_time()
    answers = assess(rows)
    seconds = time.process_time() - began
    wanted = [COARSE.get(said, said) for _, _, said in rows]
    right, asked = Counter[str](), Counter(said for _, _, said in rows)
    for (_, _, said), want, answer in zip(rows, wanted, answers, strict=True):
        right[said] += want == answer
    print(f"{system}: {right.total()} of {len(rows)} right, {len(rows) / seconds:,.0f} sentences per CPU-second")
    print("  " + ", ".join(f"{said} {right[said]}/{count}" for said, count in asked.items()))
    for label in LABELS:
        hits = sum(want == answer == label for want, answer in zip(wanted, answers, strict=True))
        given, due = answers.count(label), wanted.count(label)
        print(f"  {label:13s} precision {hits / max(given, 1):.2f} recall {hits / due:.2f} F1 {2 * hits / (given + due):.2f}")


def main() -> None:
    """Score both."""
    lines = [line for line in SENTENCES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = [(text, name, said) for text, name, said in (line.split("\t") for line in lines)]
    print_scores("our rules", rows, assess_ours)
    print_scores("medspaCy", rows, open_medspacy())


if __name__ == "__main__":
    main()
