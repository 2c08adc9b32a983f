"""Evidence points at the very words of the original text, whatever line ends, tabs and alphabets the note has."""

from __future__ import annotations

from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcoder_tasks.coding.notes import code_note, terminology_of
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.icd10cm.code_set import Code, CodeSet

_TITLES = {
    "J189": "Pneumonia, unspecified organism",
    "J449": "Chronic obstructive pulmonary disease, unspecified",
    "N390": "Urinary tract infection, site not specified",
    "R059": "Cough, unspecified",
}
_CODER = TitleCoder(
    CodeSet(
        release_key="FY2026-April",
        effective_from=date(2026, 4, 1),
        codes=tuple(Code(code, True, title[:60], title) for code, title in _TITLES.items()),
        terms=(),
    )
)
_PIECES = (
    *_TITLES.values(),
    *("pneumonia", "COPD", "infection of the urinary tract", "cough", "Discharge diagnoses:", "HPI:", "PLAN:", "no", "probable"),
    *("\r\n", "\r\n\r\n", "\n", "\t", " ", "\u00a0", "\u2028", "1. ", "- ", "; ", ", ", ". ", "é", "ﬁ", "İ", "🫀", "Ω", "\u0301"),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PIECES) | st.text(max_size=5), max_size=25).map("".join))
def test_the_evidence_of_a_code_is_a_name_of_it_in_the_original_text(text: str) -> None:
    for code in code_note(_CODER, text):
        evidence = text[code.start : code.end]
        assert evidence == evidence.strip()
        naming = terminology_of(_CODER).find_phrase(evidence)
        assert naming is not None
        assert code.code in naming.codes
