"""A few hundred real codes, evenly taken out of the release, and the examples made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import Tables, make_examples
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set

CONFIG = DatasetConfig(seed=7, notes=60, held_out_share=0.1)


@pytest.fixture(scope="session")
def code_set() -> CodeSet:
    whole = default_code_set()
    kept = [*whole.billable[::140], *(code for code in whole.codes if not code.is_billable)]
    codes = {code.code for code in kept}
    return replace(whole, codes=tuple(kept), terms=tuple(term for term in whole.terms if term.code in codes))


@pytest.fixture(scope="session")
def tables(code_set: CodeSet) -> Tables:
    return make_examples(code_set, CONFIG)
