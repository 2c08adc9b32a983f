"""Reviews in a real browser: by keyboard alone, by two people, without a script, with a hostile note, and what becomes of them."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pages_app
import pytest
from accessibility import assert_accessible, assert_fits
from review_ward import Ward
from reviewed_hospital import NOTE, Hospital

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.store import read_examples
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.records import ReleaseRef
from llmcoder_tasks.steps.build_dataset import build_dataset
from llmcoder_tasks.steps.export_encounters import export_encounters
from llmcoder_tasks.steps.review_encounters import claim_review, open_reviews

pytestmark = [pytest.mark.browser, pytest.mark.integration]

DOUBTFUL = [("E119", 0.4, "review"), ("I10", 0.5, "review"), ("J189", 0.98, "auto")]
SMILING = "Seen with a smile \U0001f642.\r\n"
"""One character for offsets is two for JavaScript, and two are one for HTML."""


@pytest.fixture
def hospital(database: Database) -> Hospital:
    """One doubtful note in the queue."""
    hospital = Hospital(database)
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", database)
    return hospital


def states(hospital: Hospital) -> dict[str, str]:
    return dict(hospital.query("SELECT code, state FROM review_codes WHERE review_id = 1"))


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def wait_for(page: Any, text: str) -> None:
    page.locator("#work", has_text=text).wait_for()


def select(page: Any, words: str) -> None:
    """Mark words of the note as a mouse would."""
    page.evaluate(
        """words => {
            const walker = document.createTreeWalker(document.querySelector("#note"), NodeFilter.SHOW_TEXT);
            const whole = document.querySelector("#note").textContent;
            const place = whole.indexOf(words), range = document.createRange();
            for (let at = 0, node; (node = walker.nextNode()); at += node.data.length) {
                if (at <= place && place < at + node.data.length) range.setStart(node, place - at);
                const end = place + words.length;
                if (at < end && end <= at + node.data.length) range.setEnd(node, end - at);
            }
            getSelection().removeAllRanges();
            getSelection().addRange(range);
        }""",
        words,
    )


def test_ten_encounters_are_reviewed_by_keyboard_alone(visit: Any, database: Database) -> None:
    ward = Ward(database, 10)
    page = visit("review", role="op")
    seen = {page.url}
    for number in range(10):
        press(page, "n")
        page.wait_for_url(lambda url: url not in seen)
        page.wait_for_selector("#codes > li:focus")
        seen.add(page.url)
        left = page.locator('#codes > li[data-state="open"]').count()
        assert left > 0
        if number == 3:
            first = page.evaluate("document.activeElement.dataset.code")
            press(page, "x", "u")
            page.locator("#live", has_text="taken back").wait_for(state="attached")
            assert page.evaluate("document.activeElement.dataset.code") == first
        press(page, *["a"] * left)  # faster than the server answers
        wait_for(page, "all decided")
        press(page, "f")
        wait_for(page, "Finished by op")
        assert page.evaluate("document.activeElement.textContent").startswith("Next")
    press(page, "n")
    page.locator("main", has_text="Nothing waits for a person").wait_for()
    assert ward.hospital.query("SELECT status, count(*) FROM reviews GROUP BY status") == [("finished", 10)]
    assert ward.hospital.query("SELECT count(*) FROM review_actions WHERE action = 'undo'") == [(1,)]


def test_keys_walk_the_codes_and_their_evidence_and_never_take_what_is_typed(visit: Any, hospital: Hospital) -> None:
    page = visit("review", role="op")
    press(page, "n")
    page.wait_for_selector("#codes > li:focus")
    marked = "() => document.querySelector('mark.current').textContent"
    assert page.evaluate(marked) == NOTE[0:13]
    press(page, "j")
    assert page.evaluate(marked) == NOTE[32:51]
    press(page, "ArrowDown")
    assert page.evaluate(marked) == NOTE[53:68]
    press(page, "k", "ArrowUp")
    assert page.evaluate(marked) == NOTE[0:13]
    page.click("mark:nth-of-type(2)")
    assert page.evaluate("document.activeElement.dataset.code") == "I10"
    press(page, "r")
    page.wait_for_selector("#query:focus")
    page.keyboard.type("jkaxrufn+?")
    assert page.input_value("#query") == "jkaxrufn+?"
    assert states(hospital) == {"E119": "open", "I10": "open", "J189": "accepted"}
    press(page, "Escape")
    assert page.evaluate("document.activeElement.dataset.code") == "I10"
    press(page, "?")
    assert page.locator("#keys[open]").count() == 1
    page.uncheck("#single-keys")
    press(page, "a")
    page.wait_for_timeout(200)
    assert states(hospital)["I10"] == "open"


def test_what_is_done_is_announced_and_the_next_open_code_has_the_focus(visit: Any, hospital: Hospital) -> None:
    page = visit("review", role="op")
    press(page, "n")
    page.wait_for_selector("#codes > li:focus")
    press(page, "a")
    page.locator("#live", has_text="E11.9 accepted. 1 to decide.").wait_for(state="attached")
    assert page.evaluate("document.activeElement.dataset.code") == "I10"
    press(page, "f")
    page.locator("#problem", has_text="I10 still to be decided").wait_for()
    assert page.evaluate("document.activeElement.id") == "problem"
    visit.complaints.clear()  # the browser complains of the 400 itself


def test_a_correction_made_in_the_browser_is_exported_and_learnt_from(
    visit: Any, hospital: Hospital, pages: pages_app.Pages, tmp_path: Path
) -> None:
    page = visit("review", role="op")
    press(page, "n")
    page.wait_for_selector("#codes > li:focus")
    select(page, "Sugar disease with bad kidneys")
    press(page, "r")
    page.wait_for_selector("#found button")
    assert page.input_value("#words") == "Sugar disease with bad kidneys"
    page.keyboard.type("kidney dis")
    press(page, "Enter")
    wait_for(page, "in the place of E11.9")
    assert page.evaluate("document.querySelector('mark[data-codes~=E1122]').textContent") == "Sugar disease with bad kidneys"
    press(page, "a", "+")
    page.wait_for_selector("#query:focus")
    page.fill("#words", "CHEST infection")  # typed, not selected
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("n39")
    page.wait_for_selector("#found button:not([disabled])")
    press(page, "ArrowDown", "Enter")
    wait_for(page, "added by a person")
    press(page, "f")
    wait_for(page, "Finished by op")

    storage = pages.stores.storage
    done = export_encounters(storage=storage, database=hospital.database)
    assert (done.encounters, done.codes) == (1, 4)
    rows = list(csv.DictReader(io.StringIO(storage.read_bytes("exports/000001/codes.csv").decode())))
    assert {(row["code"], row["origin"], row["finished_by"]) for row in rows} == {
        ("E11.22", "replaced", "op"), ("I10", "predicted", "op"), ("J18.9", "predicted", "op"), ("N39.0", "added", "op"),
    }  # fmt: skip
    page.reload()
    wait_for(page, "Exported in export 1")

    codes = {code.code: code for code in default_code_set().billable[::1000]}
    codes |= {code.code: code for code in default_code_set().billable if code.code in {"E1122", "N390"}}
    with hospital.database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            f"VALUES ('FY2026-April', '2026-04-01', 'test', 'abc', {len(codes)}, {len(codes)}, 'file:///releases')"
        )
        transaction.copy_rows(
            "codes", ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [("FY2026-April", one.code, True, one.short_title, one.long_title, n) for n, one in enumerate(codes.values(), start=1)],
        )  # fmt: skip
    dataset = build_dataset(
        ReleaseRef("FY2026-April", "file:///releases"), config=DatasetConfig(notes=20, held_out_share=0.1), storage=storage,
        database=hospital.database, docs_folder=tmp_path / "docs", train_on_corrections=True,
    )  # fmt: skip
    storage.fetch_folder(f"datasets/{dataset.dataset_id}", tmp_path / "local")
    learnt = {row.codes[0]: (row.text, row.example_id) for row in read_examples(tmp_path / "local", "corrections")}
    actions = dict(hospital.query("SELECT action, action_id FROM review_actions WHERE action IN ('replace', 'add')"))
    assert learnt == {
        "E1122": ("Sugar disease with bad kidneys", f"corrections-E1122-{actions['replace']}-FY2026"),
        "N390": ("chest infection", f"corrections-N390-{actions['add']}-FY2026"),
    }


def test_a_selection_counts_characters_as_the_database_does(visit: Any, database: Database) -> None:
    hospital = Hospital(database)
    hospital.code("E1", DOUBTFUL[:1], note=SMILING + NOTE)
    open_reviews("night", database)
    page = visit("review", role="op")
    press(page, "n")
    page.wait_for_selector("#codes > li:focus")
    select(page, "chest infection")
    press(page, "+")
    page.wait_for_selector("#query:focus")
    page.keyboard.type("pneumonia")
    press(page, "Enter")
    wait_for(page, "added by a person")
    ((start, end),) = hospital.query("SELECT evidence_start, evidence_end FROM review_codes WHERE code = 'J189'")
    assert (SMILING + NOTE)[start:end] == "chest infection"
    assert page.evaluate("document.querySelector('mark[data-codes=J189]').textContent") == "chest infection"
    assert page.evaluate("document.querySelector('[data-code=J189] .quote').textContent") == "chest infection"


def test_two_people_are_never_in_one_review_and_the_one_who_lost_it_is_told(visit: Any, hospital: Hospital) -> None:
    page = visit("review", role="op")
    press(page, "n")
    page.wait_for_selector("#codes > li:focus")
    other = visit("review/1", role="admin")
    wait_for(other, "op holds this review until")
    assert other.locator(".decide").count() == 0
    press(other, "a")
    other.locator("#live", has_text="Take this review first").wait_for(state="attached")
    press(page, "a")
    wait_for(page, "1 of 3 to decide")
    hospital.write("UPDATE reviews SET claimed_until = now() - interval '1 second'")
    other.reload()
    press(other, "c")
    wait_for(other, "Yours until")
    press(page, "a")
    page.locator("#problem", has_text="is held by admin until").wait_for()
    wait_for(page, "admin holds this review until")
    assert page.locator(".decide").count() == 0
    assert states(hospital) == {"E119": "accepted", "I10": "open", "J189": "accepted"}
    visit.complaints.clear()  # the browser complains of the 409 itself


def test_the_claim_is_renewed_while_the_page_is_used_and_its_loss_is_told(visit: Any, hospital: Hospital) -> None:
    page = visit("review", role="op")
    page.clock.install()
    press(page, "n")
    page.wait_for_selector("#codes > li:focus")
    hospital.write("UPDATE reviews SET claimed_until = now() + interval '2 minutes'")
    with page.expect_response(re.compile("/hold$")) as heard:
        page.clock.run_for(61_000)
    assert heard.value.status == 200
    page.locator("#lease", has_text="14 min left").wait_for()
    hospital.write("UPDATE reviews SET claimed_until = now() - interval '1 second'")
    claim_review(1, person="Ben Coder", database=hospital.database)
    press(page, "j")
    with page.expect_response(re.compile("/hold$")) as heard:
        page.clock.run_for(61_000)
    assert heard.value.status == 409
    page.locator("#problem", has_text="You do not hold this review any more").wait_for()
    wait_for(page, "Ben Coder holds this review until")
    visit.complaints.clear()  # of the 409


def test_a_page_that_nobody_touches_lets_its_claim_run_out(visit: Any, hospital: Hospital) -> None:
    page = visit("review", role="op")
    page.clock.install()
    press(page, "n")
    page.wait_for_selector("#codes > li:focus")
    page.clock.run_for(5 * 60_000)
    beats: list[str] = []
    page.on("request", lambda request: beats.append(request.url))
    page.clock.run_for(3 * 60_000)
    assert beats == []


def test_a_hostile_note_is_shown_as_text(visit: Any, database: Database) -> None:
    note = '<script>document.title = "broken"</script> {{ 7 * 7 }} </div><img src=x onerror="document.title=\'broken\'">' + " " * 9
    hospital = Hospital(database)
    hospital.code("<b>E1</b>", DOUBTFUL, note=note)
    open_reviews("night", database)
    page = visit("review", role="op")
    press(page, "n")
    page.wait_for_selector("#codes > li:focus")
    press(page, "a")
    wait_for(page, "1 of 3 to decide")
    assert page.evaluate("document.querySelector('#note').textContent") == note
    assert page.locator("#note img, #note script, h1 b").count() == 0
    assert page.title() == "Review of <b>E1</b> · LLMCoder"
    assert page.locator(".quote").first.text_content() == note[0:13]


def test_everything_works_without_a_script(browser: Any, server: str, hospital: Hospital) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.add_cookies([{"name": "_token", "value": pages_app.login_token("op", "op"), "url": server}])
    page = context.new_page()
    page.goto(server + "review")
    page.get_by_role("button", name="Take the most urgent").click()
    page.get_by_role("button", name="Replace E11.9").click()
    page.get_by_label("Code, or words").fill("kidney")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("button", name="E11.22").click()
    page.get_by_role("button", name="Remove I10").click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Accept I10").click()
    page.get_by_role("button", name="Finish").click()
    assert page.locator(".holding", has_text="Finished by op").count() == 1
    assert states(hospital) == {"E119": "removed", "E1122": "accepted", "I10": "accepted", "J189": "accepted"}
    context.close()


def test_the_pages_of_reviews_are_accessible_and_fit_in_light_and_dark_wide_and_narrow(visit: Any, database: Database) -> None:
    Ward(database, 3)
    for dark in (False, True):
        for width in (1280, 390):
            page = visit("review", role="op", dark=dark, width=width)
            assert_accessible(page)
            assert_fits(page)
            press(page, "n")
            page.wait_for_selector("#codes > li:focus")
            assert_accessible(page)
            press(page, "r")
            page.wait_for_selector("#found button")
            press(page, "?")
            assert_accessible(page)
            assert_fits(page)
            press(page, "Escape", "x")
            page.locator("#live", has_text="removed").wait_for(state="attached")
            assert_accessible(page)
            press(page, "u", "f")
            page.locator("#problem").wait_for()
            assert_accessible(page)
            page.get_by_role("button", name="Give back").click()
            wait_for(page, "Free.")
    visit.complaints.clear()  # of refused finishes
