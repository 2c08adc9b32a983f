"""How fast the phrase coder is, by words alone, on the whole embedded release; and how often it is right on files of variations.

    python tests/benchmarks/bench_coder.py [FILE.jsonl ...]

Prints seconds to build the index, and texts a CPU-second. Files hold rows {"text", "codes"}; without any, titles are searched.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from llmcoder_tasks.coding.coder import CANDIDATES, Coder
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set


def read_rows(path: Path) -> list[tuple[str, set[str]]]:
    """Texts with their codes."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(row["text"], set(row["codes"])) for row in rows]


def sample_titles(code_set: CodeSet) -> list[tuple[str, set[str]]]:
    """A thousand titles."""
    return [(title, {code}) for code, title in random.Random(0).sample(list(code_set.titles.items()), 1000)]


def measure(coder: Coder, name: str, rows: list[tuple[str, set[str]]]) -> None:
    """Reading, searching, and coding with cuts, each on texts that the coder has not met before."""
    started = time.process_time()
    queries = [coder.index.read(text) for text, _ in rows]
    read = time.process_time()
    coder.index.search(queries, CANDIDATES)
    searched = time.process_time()
    answers = coder.predict_lexical([text for text, _ in rows])
    coded = time.process_time()
    right = sum(set(answer) == codes for answer, (_, codes) in zip(answers, rows, strict=True))
    print(
        f"{name:16} exact {100 * right / len(rows):6.2f} %  n {len(rows):5}  read {len(rows) / (read - started):7,.0f}/s"
        f"  search {len(rows) / (searched - read):6,.0f}/s  code after search {len(rows) / (coded - searched):6,.0f}/s"
    )


def main() -> None:
    """Build once, measure each file."""
    code_set = default_code_set()
    started = time.process_time()
    coder = Coder(code_set)
    print(f"index of {len(code_set.billable):,} codes built in {time.process_time() - started:.1f} CPU-s")
    measure(coder, "titles", sample_titles(code_set))
    for path in map(Path, sys.argv[1:]):
        measure(coder, path.stem, read_rows(path))


if __name__ == "__main__":
    main()
