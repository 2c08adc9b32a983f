"""The word lists behind the variations: abbreviations, misspellings, British spellings, synonyms, names.

The lists are data (`lexicon_data/*.tsv`): a term, a tab, its written forms separated by `|`; lines that begin with `#` are
comments. The generator reads them forwards (term to forms); a normaliser reads them backwards (`terms_by_form`). All terms are
lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType

from llmcoder_tasks.errors import DatasetError

LEXICON_FOLDER = Path(__file__).resolve().parent / "lexicon_data"

Forms = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Lexicon:
    """Written forms by term, the most usual form first. `british` maps an American spelling to its one British spelling.

    `names` holds given names by sex, and surnames, for made-up patients.
    """

    abbreviations: Forms
    misspellings: Forms
    british: Forms
    synonyms: Forms
    names: Forms

    @cached_property
    def terms_by_form(self) -> Forms:
        """For every abbreviation, lower case and without its point: the terms it may stand for, in the order of the list."""
        return _invert(self.abbreviations)

    @cached_property
    def words_by_misspelling(self) -> Forms:
        """For every known misspelling and British spelling: the American words it may stand for."""
        return MappingProxyType({**_invert(self.misspellings), **_invert(self.british)})


@cache
def load_lexicon(folder: Path = LEXICON_FOLDER) -> Lexicon:
    """Read the lists, once in a process. Raises DatasetError with file and line when one is malformed."""
    return Lexicon(
        abbreviations=_read_forms(folder / "abbreviations.tsv"),
        misspellings=_read_forms(folder / "misspellings.tsv"),
        british=_read_forms(folder / "british.tsv"),
        synonyms=_read_forms(folder / "synonyms.tsv"),
        names=_read_forms(folder / "names.tsv"),
    )


def _read_forms(path: Path) -> Forms:
    forms: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        term, tab, written = line.partition("\t")
        values = tuple(written.split("|"))
        if not tab or not term or not all(value.strip() for value in values):
            raise DatasetError(f"{path.name}:{number}: expected a term, a tab and its forms separated by |, got {line!r}")
        if term.lower() in forms:
            raise DatasetError(f"{path.name}:{number}: {term!r} stands twice, join its forms in one line")
        forms[term.lower()] = values
    return MappingProxyType(forms)


def _invert(forms: Forms) -> Forms:
    terms: dict[str, list[str]] = {}
    for term, written in forms.items():
        for form in written:
            terms.setdefault(form.lower().rstrip("."), []).append(term)
    return MappingProxyType({form: tuple(dict.fromkeys(found)) for form, found in terms.items()})
