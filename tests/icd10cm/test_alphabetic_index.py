"""The alphabetic index and the tables in its format."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.alphabetic_index import parse_index
from llmcoder_tasks.icd10cm.archive import SourceFile

INDEX = b"""<ICD10CM.index><version>2017</version><title>INDEX</title><letter><title>A</title>
<mainTerm><title>Abasia<nemod>(-astasia) (hysterical)</nemod></title><code>F44.4</code></mainTerm>
<mainTerm><title>Abandonment</title><see>Maltreatment</see></mainTerm>
<mainTerm><title>Aberrant</title><term level="1"><title>artery</title><code>Q27.8</code>
<term level="2"><title>basilar NEC</title><code>Q28.-</code></term></term></mainTerm>
<mainTerm><title>Abscess, tuberculous</title><code>A18.01</code><manif>[M49.8-]</manif></mainTerm></letter></ICD10CM.index>"""

DRUGS = b"""<ICD10CM.index><version>2026</version><indexHeading><head col="1">Substance</head>
<head col="2">Poisoning Accidental</head><head col="3">Underdosing</head></indexHeading><letter><title>#</title>
<mainTerm><title>1-propanol</title><cell col="2">T51.3X1</cell><cell col="3">--</cell></mainTerm></letter></ICD10CM.index>"""


def test_every_code_gets_the_path_that_leads_to_it() -> None:
    year, terms = parse_index(SourceFile("index.xml", INDEX))
    assert year == 2017
    assert [(term.code, term.term) for term in terms] == [
        ("F444", "Abasia (-astasia) (hysterical)"),
        ("Q278", "Aberrant, artery"),
        ("Q28", "Aberrant, artery, basilar NEC"),
        ("A1801", "Abscess, tuberculous"),
        ("M498", "Abscess, tuberculous"),
    ]


def test_a_cell_of_a_table_ends_its_path_with_the_heading() -> None:
    _, terms = parse_index(SourceFile("drug.xml", DRUGS))
    assert [(term.code, term.term) for term in terms] == [("T513X1", "1-propanol, Poisoning Accidental")]


def test_an_index_without_codes_is_refused() -> None:
    with pytest.raises(ReleaseError, match="index.xml: the index names no code"):
        parse_index(SourceFile("index.xml", b"<ICD10CM.index><version>2017</version></ICD10CM.index>"))


def test_the_official_index_is_read_whole(official_releases: Path) -> None:
    data = gzip.decompress((official_releases / "FY2017" / "icd10cm_index_2017.xml.gz").read_bytes())
    year, terms = parse_index(SourceFile("index.xml", data))
    assert year == 2017
    assert sum(term.term == "Aarskog's syndrome" and term.code == "Q871" for term in terms) == 1
    assert len(terms) > 50_000
