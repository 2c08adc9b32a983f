"""`llmcoder code`: one result for each row, in order, under the release of the date."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.records import CodingResult, ModelRef
from llmcoder_tasks.steps.code_texts import TextRow, code_texts, read_rows, render_json_lines
from llmcoder_tasks.storage import FolderStorage

SECRET = "Zebediah Quux"


def test_plain_text_is_a_phrase_a_line_or_one_note() -> None:
    lines = ["pneumonia\r\n", "\n", "chest pain\n"]
    assert read_rows(lines, kind="phrase") == [
        TextRow("1", "pneumonia", "phrase", None),
        TextRow("3", "chest pain", "phrase", None),
    ]
    assert read_rows(lines, kind="note") == [TextRow("1", "pneumonia\r\n\nchest pain\n", "note", None)]
    assert read_rows([], kind="note") == []


def test_json_lines_give_each_row_its_own_kind_date_or_error() -> None:
    rows = read_rows(
        [
            '{"id": "a", "text": "pneumonia"}\n',
            '{"id": 7, "text": "x", "kind": "note", "discharge_date": "2026-04-02"}\n',
            f'{{"id": "c", "text": 5, "name": "{SECRET}"}}\n',
            f"{{{SECRET}\n",
            '{"id": "e", "text": "x", "kind": "letter"}\n',
            '{"id": "f", "text": "x", "discharge_date": "2.4.2026"}\n',
            '{"text": " "}\n',
        ],
        kind="phrase",
    )
    assert rows[:2] == [TextRow("a", "pneumonia", "phrase", None), TextRow("7", "x", "note", date(2026, 4, 2))]
    assert [(row.id, row.error) for row in rows[2:]] == [
        ("c", "text is missing or no text"),
        ("4", "not valid JSON"),
        ("e", "kind is neither phrase nor note"),
        ("f", "discharge_date is not YYYY-MM-DD"),
        ("7", "text is empty"),
    ]


@pytest.fixture
def store(tmp_path: Path) -> FolderStorage:
    folder = tmp_path / "m1"
    folder.mkdir()
    (folder / "coder.json").write_text("{}")
    write_manifest(folder, {"model_id": "m1"})
    storage = FolderStorage(tmp_path / "artifacts")
    storage.publish_folder(folder, "models/m1", last="manifest.json")
    return storage


@pytest.fixture
def releases(database: Database) -> Database:
    """Two releases: J189 is billable in the first only, N390 in the second only."""
    with database.engine.begin() as connection:
        for key, effective, code, title in (
            ("FY2026", date(2025, 10, 1), "J189", "Pneumonia, unspecified organism"),
            ("FY2026-April", date(2026, 4, 1), "N390", "Urinary tract infection, site not specified"),
        ):
            connection.execute(
                text("INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
                     "VALUES (:key, :effective, 'test', 'x', 1, 1, 'file:///x')"),
                {"key": key, "effective": effective},
            )  # fmt: skip
            connection.execute(
                text("INSERT INTO codes VALUES (:key, :code, true, :title, :title, 1)"), {"key": key, "code": code, "title": title}
            )
    return database


@pytest.mark.integration
class TestAgainstTheDatabase:
    """Rows coded with a real database and a published model folder."""

    @pytest.fixture
    def code(self, releases: Database, store: FolderStorage, tmp_path: Path) -> Any:
        def run(rows: list[TextRow], on: date = date(2026, 3, 31), open_coder: Any = TitleCoder.open) -> list[CodingResult]:
            results: Iterable[CodingResult] = code_texts(
                rows, model=ModelRef("m1", store.uri_of("models/m1")), on=on, storage=store, database=releases,
                cache_folder=tmp_path / "cache", open_coder=open_coder,
            )  # fmt: skip
            return list(results)

        return run

    def test_output_rows_have_the_stable_form(self, code: Any) -> None:
        (line,) = render_json_lines(code([TextRow("a", "Pneumonia, unspecified organism", "phrase", None)]))
        assert json.loads(line) == {
            "id": "a",
            "release": "FY2026",
            "model": "m1",
            "codes": [
                {
                    "code": "J18.9",
                    "description": "Pneumonia, unspecified organism",
                    "confidence": 1.0,
                    "decision": "auto",
                    "start": 0,
                    "end": 31,
                }
            ],
            "error": None,
        }

    def test_only_codes_billable_on_the_date_come_out(self, code: Any) -> None:
        note = "Dx:\n- Pneumonia, unspecified organism\n- Urinary tract infection, site not specified"
        rows = [
            TextRow("a", note, "note", None),
            TextRow("b", note, "note", date(2026, 4, 1)),
            TextRow("c", note, "note", date(2025, 9, 30)),
        ]
        first, second, third = code(rows)
        assert (first.release, [found.code for found in first.codes]) == ("FY2026", ["J189"])
        assert (second.release, [found.code for found in second.codes]) == ("FY2026-April", ["N390"])
        assert (third.release, third.codes) == (None, ())
        assert third.error == "no loaded release is valid on 2025-09-30: ingest an earlier one"

    def test_a_note_says_what_rules_did_and_its_group(self, code: Any) -> None:
        (result,) = code([TextRow("a", "Dx: Probable Pneumonia, unspecified organism", "note", None)])
        assert [finding.rule for finding in result.findings] == ["uncertain_diagnosis", "edits_skipped"]
        assert (result.grouping.version, result.grouping.with_all.number, result.grouping.with_auto) == (430, 195, None)

    def test_rows_come_back_in_order_and_a_bad_one_harms_no_other(self, code: Any) -> None:
        class Stumbling(TitleCoder):
            def code_phrases(self, texts: Any) -> Any:
                if any(SECRET in phrase for phrase in texts):
                    raise RuntimeError(f"cannot code {texts}")
                return super().code_phrases(texts)

        good = TextRow("a", "Pneumonia, unspecified organism", "phrase", None)
        rows = [good, TextRow("b", "", "phrase", None, "text is empty"), TextRow("c", SECRET, "phrase", None), good]
        results = code(rows, open_coder=Stumbling.open)
        assert [(row.id, len(row.codes), row.error) for row in results] == [
            ("a", 1, None),
            ("b", 0, "text is empty"),
            ("c", 0, "RuntimeError while coding"),
            ("a", 1, None),
        ]
