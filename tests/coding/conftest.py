"""One phrase coder over the whole embedded release, built once: it takes seconds."""

from __future__ import annotations

import pytest

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.icd10cm.code_set import default_code_set


@pytest.fixture(scope="session")
def coder() -> Coder:
    """Words alone, all 74,719 billable codes of April 2026."""
    return Coder(default_code_set())
