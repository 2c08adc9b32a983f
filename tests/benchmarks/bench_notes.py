"""What each part of coding a whole note adds, on coded notes that nothing was learnt from.

    python tests/benchmarks/bench_notes.py TEST.jsonl[.gz] [--learn TRAIN.jsonl[.gz]] [--model FOLDER --fit coder.json]

Files hold rows {"id", "text", "codes"}; a code that is no billable one of the release is met by any code below it. The figures are
micro-averaged over all codes, in %, and the same on the first three characters. `--learn` fits the selection on coded notes (notes
whose ids differ in the last part, after `-`, are taken for one patient's). With `--model`, listed conditions and the speed are
those of a trained coder; without, of one that knows titles only.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.coding.mentions import Mention, find_mentions
from llmcoder_tasks.coding.notes import PhraseCoder, code_notes, propose_by_constants, read_notes, terminology_of
from llmcoder_tasks.coding.rules.policy import EVERY_MENTION, US_INPATIENT
from llmcoder_tasks.coding.sections import split_sections
from llmcoder_tasks.coding.selection_fit import CodedText, learn_selection, score_codes
from llmcoder_tasks.coding.terminology import Terminology
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set

SAMPLES = Path(__file__).parents[2] / "llmcoder_tasks/samples/encounters.jsonl"
WORDS_OF_A_NOTE = 400
Answers = Sequence[Collection[str]]


def read_notes_file(path: Path) -> list[CodedText]:
    """Notes with the codes that people gave."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream if line.strip()]
    return [_coded_text(row.get("id", str(number)), row) for number, row in enumerate(rows)]


def _coded_text(note_id: str, row: dict[str, object]) -> CodedText:
    return CodedText(str(row["text"]), tuple(map(str, row["codes"])), note_id.rpartition("-")[0] or note_id)  # type: ignore[call-overload]


def name_in_notes(terminology: Terminology, texts: Iterable[str], counts: Callable[[Mention], bool]) -> Answers:
    """The codes of all names in prose and lists that mean one code."""
    return [
        {
            mention.naming.codes[0]
            for mention in find_mentions(text, split_sections(text), terminology)
            if mention.naming is not None and len(mention.naming.codes) == 1 and counts(mention)
        }
        for text in texts
    ]


def print_score(name: str, answers: Answers, notes: Sequence[CodedText], code_set: CodeSet) -> None:
    """One line: precision, recall and F1, of whole codes and of categories."""
    gold = [{code.replace(".", "").upper() for code in note.codes} for note in notes]
    whole = score_codes(answers, gold, code_set.titles)
    short = score_codes(
        [{code[:3] for code in codes} for codes in answers], [{code[:3] for code in codes} for codes in gold], _Any()
    )
    figures = (whole.precision, whole.recall, whole.f1, short.precision, short.recall, short.f1)
    print(f"{name:44}" + "".join(f"{100 * figure:8.1f}" for figure in figures), flush=True)


class _Any(dict[str, str]):
    """Every category counts as a code of its own."""

    def __contains__(self, key: object) -> bool:
        return True


def codes_of(coder: PhraseCoder, texts: Sequence[str], **options: object) -> Answers:
    """The codes that a coder reports."""
    return [{code.code for code in note.codes} for note in code_notes(coder, texts, **options)]  # type: ignore[arg-type]


def open_coder(options: argparse.Namespace, code_set: CodeSet) -> TitleCoder | Coder:
    """The coder that the options name."""
    if options.model is None:
        return TitleCoder(code_set)
    return Coder.open(options.model, code_set, fit=CoderFit.parse(options.fit.read_bytes()))


def print_speed(coder: PhraseCoder, texts: Sequence[str]) -> None:
    """Notes of 400 words per CPU-second, and the share of reading and of the phrase coder in it."""
    words = sum(len(text.split()) for text in texts)
    code_notes(coder, texts[:5])
    started = time.process_time()
    for text in texts:
        code_notes(coder, [text])
    whole = time.process_time() - started
    terminology = terminology_of(coder)
    started = time.process_time()
    for text in texts:
        find_mentions(text, split_sections(text), terminology)
    mentions = time.process_time() - started
    started = time.process_time()
    for text in texts:
        read_notes(coder, [text])
    read = time.process_time() - started
    print(
        f"{len(texts)} notes, {words / len(texts):.0f} words each: {len(texts) / whole:.0f} notes/CPU-s, "
        f"{words / whole / WORDS_OF_A_NOTE:.0f} of {WORDS_OF_A_NOTE} words; mentions {mentions / whole:.0%}, "
        f"phrases {(read - mentions) / whole:.0%}, selection, rules and edits {(whole - read) / whole:.0%}"
    )


def print_parts(coder: TitleCoder | Coder, notes: Sequence[CodedText], learn: Path | None) -> None:
    """A line for each part, every one with those before it."""
    code_set = coder.code_set
    texts = [note.text for note in notes]
    show = partial(print_score, notes=notes, code_set=code_set)
    print(f"{'':44}" + "".join(f"{head:>8}" for head in ("P", "R", "F1", "P 3ch", "R 3ch", "F1 3ch")))
    titles = Terminology.build(replace(code_set, terms=()), spoken_names=[])
    show("titles, every name in the note", name_in_notes(titles, texts, lambda _: True))
    terms = Terminology.build(code_set, spoken_names=[])
    show("+ inclusion and index terms", name_in_notes(terms, texts, lambda _: True))
    full = terminology_of(coder)
    show("+ spoken names", name_in_notes(full, texts, lambda _: True))
    show("+ context", name_in_notes(full, texts, lambda mention: mention.assertion in {"present", "historical", "possible"}))
    proposed = [{item.code for item in propose_by_constants(note, coder)} for note in read_notes(coder, texts)]
    show("+ sections, phrase coder, constants", proposed)
    show("+ rules of a US stay", codes_of(coder, texts, policy=US_INPATIENT))
    show("  or rules where every mention is coded", codes_of(coder, texts, policy=EVERY_MENTION))
    if learn is None:
        return
    coder.selection = learn_selection(read_notes_file(learn), coder)
    show(f"+ selection, learnt (policy {coder.selection.policy_name})", codes_of(coder, texts))
    print(f"  cross-validated while learning: {dict(coder.selection.evidence)}")
    print_speed(coder, texts)


def main() -> None:
    """The table for the file, then our own sample summaries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notes", type=Path, nargs="?", help="coded notes to report on; without, only the shipped samples")
    parser.add_argument("--learn", type=Path, help="coded notes to fit the selection on")
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    parser.add_argument("--fit", type=Path, help="its coder.json")
    options = parser.parse_args()
    coder = open_coder(options, default_code_set())
    if options.notes is not None:
        print_parts(coder, read_notes_file(options.notes), options.learn)
        print()
    samples = read_notes_file(SAMPLES)
    print_score("our sample summaries", codes_of(coder, [note.text for note in samples]), samples, coder.code_set)
    print_speed(coder, [note.text for note in samples])


if __name__ == "__main__":
    main()
