"""Which release it is, from what the files say and how they are named."""

from __future__ import annotations

import pytest

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.release_key import Evidence, find_key, infer_release_key, read_name


@pytest.mark.parametrize(
    ("name", "year", "month"),
    [
        ("icd10cm-order-2026.txt", 2026, None),
        ("icd10cm_codes_addenda_2022.txt", 2022, None),
        ("icd10cm-order- April 1 2023.txt", 2023, "April"),
        ("icd10c-tabular-April-1-2026.xml", 2026, "April"),
        ("icd10cm_order_2021jan.txt", 2021, "January"),
        ("icd10cm-codes-January-2021.txt", 2021, "January"),
        ("codes.txt", None, None),
        ("2025 against 2026.txt", None, None),
        ("japril-2026", 2026, None),
    ],
)
def test_a_name_tells_a_year_and_a_month_where_it_has_them(name: str, year: int | None, month: str | None) -> None:
    assert read_name(name) == Evidence(f"the name {name!r}", year, month)


def test_a_key_is_found_in_a_folder_name() -> None:
    assert find_key("FY2021-January") == "FY2021-January"
    assert find_key("icd10cm_FY2027.zip") == "FY2027"
    assert find_key("landing") is None
    assert find_key("FY2026 and FY2027") is None


@pytest.mark.parametrize(
    ("given", "source", "evidence", "key"),
    [
        (None, "x", [Evidence("a", 2026, None)], "FY2026"),
        (None, "x", [Evidence("a", 2026, None), Evidence("b", 2026, "April")], "FY2026-April"),
        (None, "FY2022-April", [Evidence("a", 2022, None)], "FY2022-April"),
        ("FY2022-April", "FY2022", [Evidence("a", 2022, None)], "FY2022-April"),
        ("FY2021-January", "x", [Evidence("a", 2021, None)], "FY2021-January"),
        ("FY2027", "x", [], "FY2027"),
    ],
)
def test_the_key_is_given_or_found(given: str | None, source: str, evidence: list[Evidence], key: str) -> None:
    assert infer_release_key(given, source, evidence) == key


@pytest.mark.parametrize(
    ("given", "source", "evidence", "message"),
    [
        ("FY2027", "x", [Evidence("a.txt", 2026, None)], "wrong year: a.txt says fiscal year 2026, but the release is FY2027"),
        (None, "FY2025", [Evidence("a.txt", 2026, None)], "wrong year: a.txt says fiscal year 2026, but the release is FY2025"),
        ("FY2026", "x", [Evidence("a.txt", 2026, "April")], "wrong release: a.txt says April, but the release is FY2026"),
        ("2026", "x", [], "'2026' is no release key"),
        (None, "x", [Evidence("a", None, "April")], "tells the year: give the release key"),
        (None, "x", [Evidence("a", 2025, None), Evidence("b", 2026, None)], "different years: a says 2025, b says 2026"),
        (None, "x", [Evidence("a", 2026, "January"), Evidence("b", 2026, "April")], r"different updates \(April, January\)"),
    ],
)
def test_contradictions_and_silence_are_refused(given: str | None, source: str, evidence: list[Evidence], message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        infer_release_key(given, source, evidence)
