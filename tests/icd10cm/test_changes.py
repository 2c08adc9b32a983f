"""Changes between two releases, and the addenda they are checked against."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_files import order_addenda

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.addenda import Addenda, parse_codes_addenda, parse_order_addenda, verify_addenda
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.changes import CodeChange, compute_changes, count_changes, find_changed_codes

BEFORE = {"A000": ("Chol", "Cholera"), "A001": ("Elt", "Eltor"), "B880": ("Acar", "Acariasis"), "Z683": ("BMI", "[BMI]30")}
AFTER = {
    "A000": ("Chol", "Cholera, classical"),
    "B8801": ("Demo", "Demodex"),
    "B8809": ("Oth", "Other"),
    "Z683": ("BMI", "[BMI] 30"),
}
EXPECTED = {
    "B8801": CodeChange("added", None, "Demodex"),
    "B8809": CodeChange("added", None, "Other"),
    "A000": CodeChange("revised", "Cholera", "Cholera, classical"),
    "A001": CodeChange("deleted", "Eltor", None),
    "B880": CodeChange("became_header", "Acariasis", "Acariasis, headed"),
    "Z683": CodeChange("revised", "[BMI]30", "[BMI] 30"),
}
CHANGES = [
    ("Add", "1", "B8801", "Demodex"),
    ("Add", "1", "B8809", "Other"),
    ("Add", "0", "B880", "Acariasis, headed"),
    ("Delete", "1", "B880", "Acariasis"),
    ("Delete", "1", "A001", "Eltor"),
    ("Revise from", "1", "A000", "Cholera"),
    ("Revise to", "1", "A000", "Cholera, classical"),
]
TITLES = {code: long for code, (_, long) in AFTER.items()}


def test_each_kind_of_change_is_told_with_its_titles() -> None:
    changes = compute_changes(BEFORE, AFTER, {"B880": ("Acar", "Acariasis, headed")})
    assert changes == EXPECTED
    assert count_changes(changes.values()) == {"added": 2, "deleted": 1, "became_header": 1, "revised": 2}


def test_a_release_without_header_rows_still_tells_headers_from_deletions() -> None:
    assert compute_changes(BEFORE, AFTER, {})["B880"] == CodeChange("became_header", "Acariasis", "Acariasis")


def test_a_short_title_counts_as_revised_only_when_both_releases_have_short_titles() -> None:
    official = {"A000": ("Chol", "Cholera"), "A001": ("Elt", "Eltor")}
    renamed = {"A000": ("Cholra", "Cholera"), "A001": ("Elt", "Eltor")}
    without = {"A000": ("Cholera", "Cholera"), "A001": ("Eltor", "Eltor")}
    assert compute_changes(official, renamed, {}) == {"A000": CodeChange("revised", "Chol", "Cholra")}
    assert compute_changes(official, without, {}) == {}
    assert compute_changes(without, official, {}) == {}


_CODES = st.dictionaries(
    st.text("AB01", min_size=3, max_size=5), st.sampled_from([("s", "one"), ("s", "two"), ("t", "two")]), max_size=12
)


@given(_CODES, _CODES)
def test_applying_the_changes_to_the_release_before_gives_the_release(
    before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]]
) -> None:
    changes = compute_changes(before, after, {})
    codes = before.keys() - {code for code, change in changes.items() if change.kind in {"deleted", "became_header"}}
    codes |= {code for code, change in changes.items() if change.kind == "added"}
    assert codes == after.keys()
    assert {code for code in before.keys() & after.keys() if before[code] != after[code]} == {
        code for code, change in changes.items() if change.kind == "revised"
    }


def _addenda(changes: list[tuple[str, str, str, str]]) -> Addenda:
    return parse_order_addenda(SourceFile("addenda.txt", order_addenda(changes, before=4, after=4)))


def test_addenda_are_read_without_the_headers() -> None:
    found = _addenda(CHANGES)
    assert found.expected_titles == {"B8801": "Demodex", "B8809": "Other", "A000": "Cholera, classical", "B880": None, "A001": None}
    assert (found.count_before, found.count_after, found.year) == (4, 4, 2027)


def test_addenda_agree_but_for_titles_changed_in_spacing_only() -> None:
    assert verify_addenda(_addenda(CHANGES), EXPECTED, TITLES) == ("Z683",)


@pytest.mark.parametrize(
    ("left_out", "kind", "code"), [(0, "added", "B8801"), (4, "deleted", "A001"), (slice(5, 7), "revised", "A000")]
)
def test_addenda_that_tell_of_other_changes_are_refused(left_out: int | slice, kind: str, code: str) -> None:
    fewer = list(CHANGES)
    del fewer[left_out]
    with pytest.raises(ReleaseError, match=rf"addenda.txt: 1 codes are {kind} either .* \({code}\)"):
        verify_addenda(_addenda(fewer), EXPECTED, TITLES)


def test_codes_addenda_need_not_tell_of_short_titles() -> None:
    lines = ["", "Codes", "  4 codes in icd10cm_order_2026.txt", "  4 codes in icd10cm_order_2027.txt"]
    lines += ["    0 additions", "    0 deletions", "    0 revisions", ""]
    addenda = parse_codes_addenda(SourceFile("addenda.txt", "\r\n".join(lines).encode()))
    assert verify_addenda(addenda, {"A000": CodeChange("revised", "Chol", "Cholra")}, TITLES) == ()
    with pytest.raises(ReleaseError, match="1 codes are revised"):
        verify_addenda(addenda, {"A000": CodeChange("revised", "Cholera", "Cholera, classical")}, TITLES)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data[: data.index(b"Headers")], "the footer with the counts is missing: the file is truncated"),
        (lambda data: data.replace(b"2 additions", b"3 additions"), "the footer counts"),
        (lambda data: data[data.index(b"\n") + 1 :], "the footer counts"),
        (lambda data: data.replace(b"Revise from:", b"Revised from"), "addenda.txt:6: expected an action"),
        (lambda data: data.replace(b"Delete:      1 A001 ", b"Delete:      1 B880 "), "addenda.txt:5: Delete B880 stands twice"),
        (lambda data: data.replace(b"Revise from: 1 A000 ", b"Revise from: 1 A002 "), "a `Revise from` lacks its `Revise to`"),
    ],
)
def test_broken_addenda_are_refused(edit: object, message: str) -> None:
    data = edit(order_addenda(CHANGES, before=4, after=4))  # type: ignore[operator]
    with pytest.raises(ReleaseError, match=message):
        parse_order_addenda(SourceFile("addenda.txt", data))


def test_the_codes_to_learn_and_the_followers_of_dead_codes_are_found_between_any_two_releases() -> None:
    before = {code: long for code, (_, long) in BEFORE.items()}

    changed = find_changed_codes(before, TITLES, {"A001": {"A000", "X99"}})

    assert changed.added == {"B8801", "B8809"}
    assert changed.revised == {"A000", "Z683"}
    assert changed.to_learn == {"A000", "B8801", "B8809", "Z683"}
    # A001 was given to a code that was there before, and to one that the later release does not have; B880 became a header.
    assert changed.followers == {"A001": {"A000"}, "B880": {"B8801", "B8809"}}
    assert changed.successors == {"B8801", "B8809"}


def test_equal_releases_leave_nothing_to_learn() -> None:
    changed = find_changed_codes(TITLES, TITLES, {"A000": {"B8801"}})

    assert (changed.to_learn, changed.successors, changed.followers) == (frozenset(), frozenset(), {})
