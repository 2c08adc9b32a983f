"""The tabular list: full codes from 7th characters, notes, and what is refused."""

from __future__ import annotations

import pytest
from release_files import CHOLERA, CHOLERA_TABULAR, tabular

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.code_set import CodeTerm
from llmcoder_tasks.icd10cm.release import SeventhCharacter
from llmcoder_tasks.icd10cm.tabular import Tabular, parse_tabular

INJURY = """<diag><name>S06</name><desc>Injury</desc>
<sevenChrDef><extension char="A">initial encounter</extension><note>first visit</note>
<extension char="D">subsequent encounter</extension><extension char="S">sequela</extension></sevenChrDef>
<notes><note>7th characters D and S do not apply to codes in category S06 with 6th character 7 - death due to brain injury prior to
regaining consciousness, or 8 - death due to other cause prior to regaining consciousness.</note></notes>
<diag><name>S06.1</name><desc>Edema</desc><diag placeholder="true"><name>S06.1X</name><desc>Edema</desc>
<diag><name>S06.1X1</name><desc>Edema, brief</desc></diag>
<diag><name>S06.1X7</name><desc>Edema with death</desc></diag></diag></diag>
<diag><name>S06.9</name><desc>Behçet's injury</desc></diag></diag>"""


def _parse(entries: str) -> Tabular:
    return parse_tabular(SourceFile("tabular.xml", tabular(entries)))


def test_seventh_characters_make_full_codes_with_fill_and_title() -> None:
    found = _parse(INJURY)
    assert list(found.titles.items()) == [
        ("S06", "Injury"),
        ("S061", "Edema"),
        ("S061X", "Edema"),
        ("S061X1", "Edema, brief"),
        ("S061X1A", "Edema, brief, initial encounter"),
        ("S061X1D", "Edema, brief, subsequent encounter"),
        ("S061X1S", "Edema, brief, sequela"),
        ("S061X7", "Edema with death"),
        ("S061X7A", "Edema with death, initial encounter"),
        ("S061X7D", "Edema with death, subsequent encounter"),
        ("S061X7S", "Edema with death, sequela"),
        ("S069", "Behcet's injury"),
        ("S069XXA", "Behcet's injury, initial encounter"),
        ("S069XXD", "Behcet's injury, subsequent encounter"),
        ("S069XXS", "Behcet's injury, sequela"),
    ]
    assert found.year == 2027


def test_the_lists_own_note_excludes_seventh_characters_that_do_not_apply() -> None:
    found = _parse(INJURY)
    assert found.excluded == {"S061X7D", "S061X7S"}
    assert found.expanded == {code for code in found.titles if len(code) == 7}


def test_a_note_on_a_character_goes_into_its_meaning_only() -> None:
    assert _parse(INJURY).seventh_characters == [
        SeventhCharacter("S06", "A", "initial encounter; first visit"),
        SeventhCharacter("S06", "D", "subsequent encounter"),
        SeventhCharacter("S06", "S", "sequela"),
    ]


def test_a_nearer_definition_replaces_the_one_above() -> None:
    nearer = INJURY.replace(
        "<desc>Edema</desc><diag placeholder",
        '<desc>Edema</desc><sevenChrDef><extension char="G">x</extension></sevenChrDef><diag placeholder',
    )
    assert {code for code in _parse(nearer).titles if code.startswith("S061X1")} == {"S061X1", "S061X1G"}


def test_notes_become_terms_and_an_empty_note_is_survived() -> None:
    found = parse_tabular(SourceFile("tabular.xml", CHOLERA_TABULAR))
    assert found.terms == [
        CodeTerm("A00-Z99", "includes", "all there is"),
        CodeTerm("A00", "excludes1", "carrier of cholera (Z22.1)"),
        CodeTerm("A000", "inclusion_term", "Classical cholera"),
    ]
    assert list(found.titles.items()) == [(code, title) for code, _, title in CHOLERA]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (CHOLERA_TABULAR[:900], r"tabular.xml:\d+: broken XML \(.*\): the file is truncated or damaged"),
        (CHOLERA_TABULAR.replace(b"2027", b"soon"), r"<version> says 'soon'"),
        (CHOLERA_TABULAR.replace(b"<name>C44<", b"<name>A00.9<"), r"tabular.xml:14: the code A009 stands already above"),
        (CHOLERA_TABULAR.replace(b"<name>C44<", b"<name>c-44<"), r"tabular.xml:14: 'c-44' is not a code"),
        (CHOLERA_TABULAR.replace(b"<desc>Cholera, unspecified</desc>", b"<desc/>"), r"tabular.xml:11: A00.9 has no title"),
        (
            CHOLERA_TABULAR.replace(b"<ICD10CM", b'<!DOCTYPE x [<!ENTITY a "b">]><ICD10CM', 1),
            r"tabular.xml: the XML brings a DTD or entities \(DTDForbidden\)",
        ),
        (tabular(""), "tabular.xml: the tabular list holds no code"),
        (
            tabular(INJURY.replace("with 6th character", "whose sixth place is")),
            "cannot read the note '7th characters D and S do not apply",
        ),
    ],
)
def test_a_broken_tabular_list_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        parse_tabular(SourceFile("tabular.xml", data))
