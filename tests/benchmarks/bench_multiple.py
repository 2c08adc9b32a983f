"""How well lines of several conditions are cut and coded, by the way in which they are joined; and how fast.

    python tests/benchmarks/bench_multiple.py PATH [PATH ...] [--lines 200] [--seed 0] [--model FOLDER [--alone]]

A PATH is a JSONL file of rows {"text", "codes"}, or a dataset folder, of whose single conditions the validation split is taken.
Two to five rows of any of them make a line. Without a model folder words alone code; with `--alone` the model does without words.
Prints, for each way of joining: lines with exactly the right codes, conditions found, lines of which every condition is right when
it stands alone (no cutting can do better), lines with the right number of codes, and lines a CPU-second.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.dataset.store import read_examples
from llmcoder_tasks.icd10cm.code_set import default_code_set

Row = tuple[str, frozenset[str]]
Predictor = Callable[[Sequence[str]], list[tuple[str, ...]]]

STYLES = ("comma", "semicolon", "and", "comma and", "slash", "newline", "numbered", "numbered line", "bullets", "mixed")
SCENARIOS = ("reordered", "abbreviations", "typos", "sentences")


def join_rows(texts: Sequence[str], style: str, chance: random.Random) -> str:
    """Conditions in one line, or one list, as people join them. Within a line a condition loses its full stop."""
    inline = [text.rstrip(". ") for text in texts]
    if style == "newline":
        return chance.choice(("", "", "Diagnoses:\n")) + "\n".join(texts)
    if style == "bullets":
        mark = chance.choice(("- ", "* ", "\u2022 "))
        return "\n".join(mark + text for text in texts)
    if style.startswith("numbered"):
        between = " " if style == "numbered line" else "\n"
        mark = chance.choice((". ", ") "))
        return between.join(f"{number}{mark}{text}" for number, text in enumerate(texts, start=1))
    if style == "mixed":
        joints = [chance.choice((", ", "; ", " and ", ", and ", " / ", " as well as ", " & ", " plus ")) for _ in inline[1:]]
    elif style == "comma and":
        joints = [", "] * (len(inline) - 2) + [chance.choice((" and ", ", and "))]
    else:
        joints = [{"comma": ", ", "semicolon": "; ", "and": " and ", "slash": " / "}[style]] * (len(inline) - 1)
    return inline[0] + "".join(joint + text for joint, text in zip(joints, inline[1:], strict=True))


def make_lines(rows: Sequence[Row], style: str, count: int, seed: int) -> list[tuple[str, list[Row]]]:
    """Lines of two to five different conditions, and what each is made of."""
    chance = random.Random(f"{seed} {style}")
    lines = []
    while len(lines) < count:
        chosen = chance.sample(rows, chance.randint(2, 5))
        codes = [code for _, found in chosen for code in found]
        if len(set(codes)) == len(codes):
            lines.append((join_rows([text for text, _ in chosen], style, chance), chosen))
    return lines


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSONL file, or of the single conditions of a dataset folder."""
    if path.is_dir():
        examples = [item for name in SCENARIOS for item in read_examples(path, name, split="validation")]
        return [(item.text, frozenset(item.codes)) for item in examples]
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(row["text"], frozenset(code.replace(".", "") for code in row["codes"])) for row in found]


def measure(name: str, lines: Sequence[tuple[str, list[Row]]], predict: Predictor) -> list[float]:
    """Print and return a row of figures: shares in percent, and lines a CPU-second."""
    started = time.process_time()
    answers = [set(answer) for answer in predict([text for text, _ in lines])]
    seconds = time.process_time() - started
    alone = dict.fromkeys(row for _, rows in lines for row in rows)
    right = dict(
        zip(
            alone,
            (set(found) == codes for found, (_, codes) in zip(predict([t for t, _ in alone]), alone, strict=True)),
            strict=True,
        )
    )
    wanted = [set().union(*(codes for _, codes in rows)) for _, rows in lines]
    exact = [answer == codes for answer, codes in zip(answers, wanted, strict=True)]
    best = [all(right[row] for row in rows) for _, rows in lines]
    counted = [len(answer) == len(codes) for answer, codes in zip(answers, wanted, strict=True)]
    found = sum(len(answer & codes) for answer, codes in zip(answers, wanted, strict=True)) / sum(map(len, wanted))
    shares = [sum(exact) / len(lines), found, sum(best) / len(lines), sum(counted) / len(lines)]
    figures = [100 * share for share in shares] + [len(lines) / seconds]
    show(name, figures)
    return figures


def show(name: str, figures: Sequence[float]) -> None:
    """One row of the table."""
    exact, found, best, counted, speed = figures
    print(f"{name:16} {exact:10.2f} {found:10.2f} {best:10.2f} {counted:10.2f} {speed:10,.0f}", flush=True)


def open_predictor(model: Path | None, *, alone: bool) -> Predictor:
    """Words alone, the coder as shipped, or a fine-tuned model without words."""
    code_set = default_code_set()
    if model is None:
        return Coder(code_set).predict_lexical
    if not alone:
        return Coder.open(model, code_set).predict_together
    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.trie import CodeTrie

    local = LocalModel.load(model)
    trie = CodeTrie.build((code.code for code in code_set.billable), local.tokenizer)
    return lambda texts: local.predict(texts, trie=trie)


def main() -> None:
    """Read, join, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--lines", type=int, default=200, help="lines for each way of joining")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a model folder")
    parser.add_argument("--alone", action="store_true", help="the model without words")
    arguments = parser.parse_args()
    rows = [row for path in arguments.paths for row in read_rows(path)]
    predict = open_predictor(arguments.model, alone=arguments.alone)
    print(f"{'joined by':16} {'exact %':>10} {'codes %':>10} {'best %':>10} {'count %':>10} {'lines/s':>10}")
    table = [measure(style, make_lines(rows, style, arguments.lines, arguments.seed), predict) for style in STYLES]
    show("all", [sum(column) / len(table) for column in zip(*table, strict=True)])


if __name__ == "__main__":
    main()
