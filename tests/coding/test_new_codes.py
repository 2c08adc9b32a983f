"""A release that the language model was not trained on: its new codes are found at once, and its deleted codes are gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from llmcoder_tasks.coding.calibration import Calibration, Threshold
from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CoderFit, pack_codes, unpack_codes
from llmcoder_tasks.coding.combination import LEXICAL_FEATURES, TOGETHER_FEATURES, give_neutral
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.variations import VARIED_SCENARIOS, Variations
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.icd10cm.release_reader import read_release
from llmcoder_tasks.icd10cm.source import read_source


class SureOfOldCodes:
    """A language model of FY2025: sure of the first code that it knows, and of any other code that it is impossible."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = frozenset(known)

    def score(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        return [self._score(codes) for codes in candidates]

    def _score(self, codes: Sequence[str]) -> list[float]:
        first = next((code for code in codes if code in self._known), None)
        return [-0.1 if code == first else -9.0 if code in self._known else -25.0 for code in codes]


def _read(folder: Path, key: str) -> CodeSet:
    release = read_release(read_source(str(folder / key)), release_key=key)
    return CodeSet(release.release_key, release.effective_from, release.codes, release.terms)


@pytest.fixture(scope="module")
def releases(official_releases: Path) -> tuple[CodeSet, CodeSet]:
    """FY2025 and FY2026."""
    return _read(official_releases, "FY2025"), _read(official_releases, "FY2026")


@pytest.fixture(scope="module")
def new_coder(releases: tuple[CodeSet, CodeSet]) -> Coder:
    """FY2026 with a language model of FY2025."""
    old, new = releases
    evidence = Threshold(0.9, 400, 380, 0, 0.0099, 0.95)

    def calibration(names: tuple[str, ...]) -> Calibration:
        return Calibration(names, (10.0,) + (0.0,) * (len(names) - 1), -7.0, 400, 0.01, (), evidence)

    lexical, together = calibration(LEXICAL_FEATURES), calibration(TOGETHER_FEATURES)
    fit = CoderFit("f", "m", "d", "FY2025", 160.0, lexical, together, frozenset(old.titles))
    return Coder(new, model=SureOfOldCodes(list(old.titles)), fit=fit)


def test_new_codes_are_found_before_any_training(new_coder: Coder, releases: tuple[CodeSet, CodeSet]) -> None:
    old, new = releases
    added = [code for code in new.titles if code not in old.titles]
    assert len(added) == 487
    answers = new_coder.predict_together([new.titles[code] for code in added])
    assert sum(answer == (code,) for code, answer in zip(added, answers, strict=True)) >= 0.95 * len(added)
    variations = Variations.of_release(new, load_lexicon(), seed=0)
    made = [(code, variations.vary(scenario, code, 0, taught=False)) for code in added for scenario in VARIED_SCENARIOS]
    varied = [(code, text) for code, text in made if text]
    answers = new_coder.predict_together([text for _, text in varied])
    assert sum(answer == (code,) for (code, _), answer in zip(varied, answers, strict=True)) >= 0.9 * len(varied)


def test_deleted_codes_come_out_for_the_earlier_date_only(new_coder: Coder, releases: tuple[CodeSet, CodeSet]) -> None:
    old, new = releases
    deleted = [code for code in old.titles if code not in new.titles]
    assert len(deleted) == 28
    titles = [old.titles[code] for code in deleted]
    written = [*titles, *deleted]
    assert not set(deleted) & {code for answer in new_coder.predict_together(written) for code in answer}
    answers = Coder(old).predict_lexical(titles)
    assert sum(answer == (code,) for code, answer in zip(deleted, answers, strict=True)) >= 0.95 * len(deleted)


def test_the_model_is_neutral_about_a_code_that_it_never_saw() -> None:
    assert give_neutral([-25.0, -3.0, -0.1], [False, True, True]) == [-0.1, -3.0, -0.1]
    assert give_neutral([-25.0, -24.0], [False, False]) == [0.0, 0.0]


def test_known_codes_are_kept_and_a_broken_list_is_refused() -> None:
    codes = frozenset({"E119", "I10"})
    assert unpack_codes(pack_codes(codes)) == codes
    assert unpack_codes(pack_codes(())) == frozenset()
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack_codes("aGVsbG8=")
