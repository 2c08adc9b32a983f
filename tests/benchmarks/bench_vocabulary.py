"""What each part of the vocabulary adds to the search by words alone, on titles' variations and on how people say it.

    python tests/benchmarks/bench_vocabulary.py [FILE.jsonl ...] [--index INDEX.xml ...] [--limit 1000]

Files hold rows {"text", "codes"}. `--index` adds the terms of an alphabetic index as the publisher's XML has it, where the embedded
release has none. Every phrase is taken as one condition; figures are exact match in %.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from llmcoder_tasks.coding.candidates import CandidateIndex
from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.short_forms import read_short_forms
from llmcoder_tasks.coding.spoken_names import read_spoken_names
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.icd10cm.alphabetic_index import parse_index
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.code_set import CodeSet, CodeTerm, default_code_set

COLLOQUIAL = Path(__file__).with_name("colloquial_phrases.tsv")
Row = tuple[str, set[str]]


def list_vocabularies(code_set: CodeSet, index_terms: Sequence[CodeTerm]) -> Iterator[tuple[str, CodeSet, list[tuple[str, str]]]]:
    """Names of vocabularies, each holding the one before, with the codes and terms and the spoken names to search."""
    terms = tuple(term for term in code_set.terms if term.kind == "inclusion_term")
    yield "titles", replace(code_set, terms=()), []
    yield "+ inclusion terms", replace(code_set, terms=terms), []
    known = {code.code for code in code_set.codes}
    terms += tuple(term for term in (*code_set.terms, *index_terms) if term.kind == "index_term" and term.code in known)
    if terms[-1].kind == "index_term":
        yield "+ index terms", replace(code_set, terms=terms), []
    yield "+ spoken names", replace(code_set, terms=terms), read_spoken_names()


def read_rows(path: Path, limit: int) -> list[Row]:
    """Texts with their codes, without dots."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]
    if path.suffix == ".tsv":
        return [(said, {code.replace(".", "")}) for said, code in (line.split("\t") for line in lines)][:limit]
    rows = map(json.loads, lines)
    return [(row["text"], {code.replace(".", "") for code in row["codes"]}) for row in rows][:limit]


def read_index(path: Path) -> tuple[CodeTerm, ...]:
    """The terms of an alphabetic index, packed or not."""
    data = path.read_bytes()
    return parse_index(SourceFile(path.name, gzip.decompress(data) if path.suffix == ".gz" else data))[1]


def main() -> None:
    """One line for each vocabulary, one column for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--index", nargs="*", type=Path, default=[])
    parser.add_argument("--limit", type=int, default=1000)
    options = parser.parse_args()
    files = {path.stem: read_rows(path, options.limit) for path in [COLLOQUIAL, *options.files]}
    code_set = default_code_set()
    index_terms = [term for path in options.index for term in read_index(path)]
    print(f"{'vocabulary':18} {'names':>8}" + "".join(f"{name[:18]:>20}" for name in files))
    for name, narrowed, spoken in list_vocabularies(code_set, index_terms):
        index = CandidateIndex(narrowed, read_short_forms(load_lexicon()), spoken_names=spoken)
        coder = Coder(narrowed, index=index)
        cells = []
        for rows in files.values():
            answers = coder.code_phrases([text for text, _ in rows])
            right = sum({found[0].code} == codes if found else False for found, (_, codes) in zip(answers, rows, strict=True))
            cells.append(f"{100 * right / len(rows):14.1f} ({len(rows)})".rjust(20))
        print(f"{name:18} {len(index.documents):>8,}{''.join(cells)}")


if __name__ == "__main__":
    main()
