"""Releases and codes: reports with and without their artifacts, who may code again, search, and the history of a code."""

from __future__ import annotations

import json
import time
from datetime import date
from typing import Any

import pytest
from pages_app import Pages

from llmcoder_pages.codes import join_eras
from llmcoder_tasks.database import Database
from llmcoder_tasks.steps.report_release import report_release

OLD, NEW = "FY2026", "FY2027"
CODES = {
    OLD: [
        ("E11", False, "Type 2 diabetes mellitus"), ("E110", True, "Type 2 diabetes mellitus with hyperosmolarity"),
        ("E119", True, "Type 2 diabetes mellitus without complications"), ("I10", True, "Essential (primary) hypertension"),
        ("B20", True, "Human immunodeficiency virus [HIV] disease"), ("Z99", True, "100% dependence, <b>unspecified</b>"),
    ],
    NEW: [
        ("E11", False, "Type 2 diabetes mellitus"), ("E110", False, "Type 2 diabetes mellitus with hyperosmolarity"),
        ("E1100", True, "Type 2 diabetes mellitus with hyperosmolarity without coma"),
        ("E119", True, "Type 2 diabetes mellitus, without complications"), ("I10", True, "Essential (primary) hypertension"),
        ("Z99", True, "100% dependence, <b>unspecified</b>"),
    ],
}  # fmt: skip


@pytest.fixture
def releases(database: Database) -> None:
    """Two releases: B20 is gone without a successor, E11.0 became a header, E11.9 has another title."""
    with database.transaction() as transaction:
        for key, day in ((OLD, "2025-10-01"), (NEW, "2026-10-01")):
            transaction.run_script(
                "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
                f"VALUES ('{key}', '{day}', 'a folder', 'x', {len(CODES[key])}, 4, 'file:///x')"
            )
            rows = [(key, code, billable, title, title, place) for place, (code, billable, title) in enumerate(CODES[key], 1)]
            transaction.copy_rows("codes", ["release_key", "code", "is_billable", "short_title", "long_title", "position"], rows)
        transaction.run_script(
            f"""
            INSERT INTO code_conversions VALUES ('{NEW}', 'E1100', 'E110', '2026-10-01');
            INSERT INTO code_terms VALUES ('{NEW}', 'I10', 'inclusion_term', 1, 'High blood pressure'),
                                          ('{NEW}', 'I10', 'excludes1', 2, 'Pressure of the eye');
            INSERT INTO code_changes VALUES
                ('{NEW}', '{OLD}', 'B20', 'deleted', 'Human immunodeficiency virus [HIV] disease', NULL),
                ('{NEW}', '{OLD}', 'E110', 'became_header', 'Type 2 diabetes mellitus with hyperosmolarity', 'the same'),
                ('{NEW}', '{OLD}', 'E1100', 'added', NULL, 'Type 2 diabetes mellitus with hyperosmolarity without coma'),
                ('{NEW}', '{OLD}', 'E119', 'revised', 'Type 2 diabetes mellitus without complications',
                 'Type 2 diabetes mellitus, without complications');
            """
        )


def test_an_empty_database_says_that_nothing_is_loaded(pages: Pages) -> None:
    client = pages.client("viewer")
    assert "No release is loaded yet." in client.get("releases").text
    assert "No release is loaded yet." in client.get("codes?q=I10").text


def test_releases_are_listed_with_the_days_on_which_they_are_valid(pages: Pages, releases: None) -> None:
    text = pages.client("viewer").get("releases").text
    assert text.index(f">{NEW}<") < text.index(f">{OLD}<")
    assert '<time datetime="2025-10-01">01 Oct 2025</time> to <time datetime="2026-09-30">' in text
    assert "until further notice" in text
    assert "not reported" in text


def test_a_release_shows_its_report_and_links_it(pages: Pages, releases: None, database: Database) -> None:
    reference = report_release(NEW, storage=pages.stores.storage, database=database)
    client = pages.client("viewer")
    text = client.get(f"releases/{NEW}").text
    assert "Changes by chapter" in text
    assert "Encounters to code again" in text
    assert "never measured" in text
    assert f"reports/release/{reference.report_id}" in text
    assert client.get(f"reports/release/{reference.report_id}").status_code == 200


def test_without_a_report_or_its_file_the_release_shows_what_the_database_knows(
    pages: Pages, releases: None, database: Database
) -> None:
    client = pages.client("viewer")
    text = client.get(f"releases/{NEW}").text
    assert "were not reported yet" in text
    reference = report_release(NEW, storage=pages.stores.storage, database=database)
    with database.transaction() as transaction:
        transaction.run_script(f"UPDATE release_reports SET uri = '{pages.stores.storage.uri}/gone'")
    text = client.get(f"releases/{NEW}").text
    assert "cannot be read from the artifact store" in text
    assert "What is loaded" in text
    assert reference.report_id.startswith(NEW)
    assert client.get(f"reports/release/{reference.report_id}").status_code == 404


@pytest.mark.parametrize(("role", "may_start"), [("viewer", False), ("user", True), ("op", True)])
def test_who_may_start_the_dag_in_airflow_gets_the_button_that_codes_again(
    pages: Pages, releases: None, database: Database, role: str, may_start: bool
) -> None:
    _report_with(pages, database, to_recode=1240)
    text = pages.client(role).get(f"releases/{NEW}").text
    assert "1,240" in text
    assert ("data-recode" in text) is may_start
    assert ("Your login may not start the DAG" in text) is not may_start


def _report_with(pages: Pages, database: Database, **counts: int) -> None:
    """The report of NEW, and its row with other counts."""
    report_release(NEW, storage=pages.stores.storage, database=database)
    with database.transaction() as transaction:
        transaction.run_script(f"UPDATE release_reports SET counts = counts || '{json.dumps(counts)}' WHERE release_key = '{NEW}'")


def test_no_page_of_a_release_names_an_encounter(pages: Pages, releases: None, database: Database) -> None:
    reference = report_release(NEW, storage=pages.stores.storage, database=database)
    key = f"{pages.stores.storage.key_of(reference.uri)}/report.json"
    document = json.loads(pages.stores.storage.read_bytes(key))
    document["outdated"] = [{"encounter_id": "encounter-77", "discharge_date": "2026-10-02", "is_reviewed": False}]
    pages.stores.storage.write_bytes(key, json.dumps(document).encode())
    assert "encounter-77" not in pages.client("viewer").get(f"releases/{NEW}").text


def test_changes_are_listed_by_kind_with_successors(pages: Pages, releases: None) -> None:
    client = pages.client("viewer")
    text = client.get(f"releases/{NEW}/changes").text
    assert [text.index(code) for code in (">B20<", ">E11.0<", ">E11.00<", ">E11.9<")] == sorted(
        text.index(code) for code in (">B20<", ">E11.0<", ">E11.00<", ">E11.9<")
    )
    header = client.get(f"releases/{NEW}/changes?kind=became_header").text
    assert ">E11.00<" in header  # as its successor
    assert ">B20<" not in header
    assert "none named" in client.get(f"releases/{NEW}/changes?kind=deleted").text
    assert client.get(f"releases/{NEW}/changes?kind=other").status_code == 422


@pytest.mark.parametrize("path", ["releases/FY2030", "releases/FY2030/changes", "reports/release/FY2030", "codes/Q999"])
def test_what_is_unknown_is_a_404(pages: Pages, releases: None, path: str) -> None:
    assert pages.client("viewer").get(path).status_code == 404
    assert pages.client("viewer").get("codes?q=I10&release=FY2030").status_code == 404


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("e11", ["E11", "E11.0", "E11.00", "E11.9"]), ("E11.0", ["E11.0", "E11.00"]), ("e1100", ["E11.00"]),
        ("coma diabetes", ["E11.00"]), ("DIABETES", ["E11", "E11.0", "E11.00", "E11.9"]), ("blood pressure", ["I10"]),
        ("pressure eye", []), ("100%", ["Z99"]), ("1_0", []), ("A99", []), ("type hypertension", []), ("essential", ["I10"]),
    ],
)  # fmt: skip
def test_codes_are_found_by_their_beginning_and_by_words_of_titles_and_terms(
    pages: Pages, releases: None, query: str, found: list[str]
) -> None:
    answer = pages.client("viewer").get("codes", params={"q": query, "release": NEW})
    parts = answer.text.split('class="code" href="/llmcoder/codes/')[1:]
    assert [part.partition(">")[2].partition("<")[0] for part in parts] == found


def test_a_query_and_a_title_are_shown_as_text(pages: Pages, releases: None) -> None:
    text = pages.client("viewer").get("codes", params={"q": '"><b>dependence', "release": NEW}).text
    assert "<b>" not in text
    text = pages.client("viewer").get("codes", params={"q": "dependence", "release": NEW}).text
    assert "&lt;b&gt;unspecified&lt;/b&gt;" in text


def test_the_history_of_a_code_joins_releases_that_say_the_same(pages: Pages, releases: None) -> None:
    client = pages.client("viewer")
    same = client.get("codes/I10").text
    assert f"{OLD} to {NEW}" in same
    assert "High blood pressure" in same
    revised = client.get("codes/E11.9").text
    assert "diabetes mellitus without complications" in revised
    assert "diabetes mellitus, without complications" in revised
    header = client.get("codes/E110").text
    assert header.index("header") < header.index("billable")
    assert "Successors" in header
    assert "E11.00" in header
    assert "Predecessors" in client.get("codes/e1100").text
    assert "not in the newest release" in client.get("codes/B20").text


def test_a_gap_between_releases_is_not_bridged() -> None:
    def row(key: str, first: date, last: date | None) -> dict[str, Any]:
        return {"title": "flu", "is_billable": True, "effective_from": first, "effective_to": last, "release_key": key}

    eras = join_eras([
        row("FY2021", date(2020, 10, 1), date(2021, 9, 30)), row("FY2023", date(2022, 10, 1), date(2023, 9, 30)),
        row("FY2024", date(2023, 10, 1), None),
    ])  # fmt: skip
    assert [(era.first_release, era.last_release) for era in eras] == [("FY2021", "FY2021"), ("FY2023", "FY2024")]
    assert eras[1].valid_until is None


def test_a_long_list_is_paged_in_the_order_of_the_release(pages: Pages, releases: None, database: Database) -> None:
    with database.transaction() as transaction:
        transaction.run_script(
            f"INSERT INTO codes SELECT '{NEW}', 'S' || lpad(n::text, 5, '0'), true, 'fall', 'Fall from a wall ' || n, 100 + n "
            "FROM generate_series(1, 120) AS n"
        )
    client = pages.client("viewer")
    seen: list[str] = []
    address: str | None = f"codes?q=fall+wall&release={NEW}"
    while address:
        text = client.get(address).text
        seen += [part.partition(">")[2].partition("<")[0] for part in text.split('class="code" href="/llmcoder/codes/')[1:]]
        before = text.partition("Next page")[0]
        address = before.rpartition('href="/llmcoder/')[2].split('"')[0].replace("&amp;", "&") if "Next page" in text else None
    assert seen == [f"S{n:05d}"[:3] + "." + f"S{n:05d}"[3:] for n in range(1, 121)]


def test_words_are_searched_in_a_release_of_full_size(pages: Pages, releases: None, database: Database) -> None:
    with database.transaction() as transaction:
        transaction.run_script(
            f"""
            INSERT INTO codes SELECT '{NEW}', 'S' || lpad(n::text, 6, '0'), true, 'x',
                'Displaced fracture of part ' || n || ' of left femur, subsequent encounter for closed fracture', 1000 + n
            FROM generate_series(1, 98000) AS n;
            ANALYZE codes;
            """
        )
    client = pages.client("viewer")
    seconds = []
    for query in ("zebra", "fracture femur 97999", "S097999"):
        started = time.monotonic()
        answer = client.get("codes", params={"q": query, "release": NEW})
        seconds.append(time.monotonic() - started)
        assert ("S09.7999" in answer.text) is (query != "zebra")
    assert min(seconds) < 1, "each takes 0.1 s on an idle machine"
