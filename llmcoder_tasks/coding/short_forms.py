"""What people write instead of the words of titles: the lexicon read backwards, and how sentences name an encounter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcoder_tasks.dataset.lexicon import Lexicon

ENCOUNTER_WORDS_FILE = Path(__file__).with_name("encounter_words.tsv")


def read_short_forms(lexicon: Lexicon) -> Mapping[str, tuple[str, ...]]:
    """For every abbreviation, misspelling, British spelling, synonym and encounter phrase: the titles' words it may stand for."""
    forms: dict[str, list[str]] = defaultdict(list)
    for mapping in (lexicon.terms_by_form, lexicon.words_by_misspelling):
        for form, terms in mapping.items():
            forms[form] += terms
    for term, synonyms in (*lexicon.synonyms.items(), *_read_encounter_words()):
        for form in synonyms:
            forms[form].append(term)
    return {form: tuple(dict.fromkeys(terms)) for form, terms in forms.items()}


def _read_encounter_words() -> list[tuple[str, list[str]]]:
    lines = ENCOUNTER_WORDS_FILE.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(term, forms.split("|")) for term, forms in pairs]
