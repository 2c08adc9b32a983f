"""A language model that reads whole notes: what it says is held against the note, and what it cannot say stops nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from llm_server import Behaviour, FakeLanguageModel, serve_language_model

from llmcoder_tasks.coding.note_reader import (
    NOTE_MODEL_NAME,
    Diagnosis,
    NoteModel,
    NoteReader,
    UnreadableAnswer,
    open_note_reader,
    parse_diagnoses,
)
from llmcoder_tasks.coding.notes import code_notes
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.errors import LanguageModelError, LanguageModelUnreachable, ModelError
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set
from llmcoder_tasks.records import CodedNote, Finding
from llmcoder_tasks.settings import LanguageModel

NOTE = """CHIEF COMPLAINT: Shortness of breath.

FAMILY HISTORY: Mother had breast cancer.

PAST MEDICAL HISTORY: Pneumonia in 2019, gout. No history of diabetes. Allergic to penicillin.

HOSPITAL COURSE: Treated for heart
failure. Possible pulmonary embolism was ruled out.

DISCHARGE DIAGNOSES:
1. Acute on chronic systolic (congestive) heart failure
2. Probable community-acquired pneumonia
3. Chronic kidney disease, stage 3b
"""


def _row(code: str, quote: str, uncertain: bool = False) -> dict[str, Any]:
    return {"code": code, "quote": quote, "uncertain": uncertain}


def _answer(*rows: dict[str, Any]) -> str:
    return json.dumps({"diagnoses": rows})


@pytest.fixture(scope="module")
def code_set() -> CodeSet:
    return default_code_set()


@pytest.fixture
def server() -> Iterator[FakeLanguageModel]:
    with serve_language_model() as server:
        yield server


def _source(server: FakeLanguageModel) -> LanguageModel:
    return LanguageModel(server.url, "reader", "sk-secret", prefix="LLMCODER_NOTE_LLM")


def _open(server: FakeLanguageModel) -> NoteReader:
    return open_note_reader(NoteModel.of(_source(server)), _source(server))


@pytest.fixture(scope="module")
def coder(code_set: CodeSet) -> TitleCoder:
    return TitleCoder(code_set)


def _code(coder: TitleCoder, server: FakeLanguageModel, *rows: dict[str, Any]) -> CodedNote:
    server.always = Behaviour(text=_answer(*rows))
    coder.note_reader = _open(server)
    return code_notes(coder, [NOTE])[0]


def _rule(note: CodedNote, code: str) -> list[tuple[str, str, str | None]]:
    return [(finding.rule, finding.action, finding.related_code) for finding in note.findings if finding.code == code]


def test_codes_come_with_the_place_of_their_words_and_pass_where_the_final_list_names_them(
    coder: TitleCoder, server: FakeLanguageModel
) -> None:
    note = _code(coder, server, _row("N18.32", "Chronic kidney disease, stage 3b"), _row("m10.9", "gout"))
    by_code = {code.code: code for code in note.codes}
    assert {code: NOTE[item.start : item.end] for code, item in by_code.items()} == {
        "N1832": "Chronic kidney disease, stage 3b", "M109": "gout",
    }  # fmt: skip
    assert (by_code["N1832"].decision, by_code["N1832"].confidence) == ("auto", 0.97)
    assert by_code["M109"].decision == "review", "what stands in the history alone is looked at by a person"


def test_the_whole_note_and_the_form_of_answer_reach_the_server(coder: TitleCoder, server: FakeLanguageModel) -> None:
    _code(coder, server)
    (request,) = server.requests
    assert request["messages"][1] == {"role": "user", "content": NOTE}
    schema = request["response_format"]["json_schema"]["schema"]["properties"]["diagnoses"]["items"]
    assert schema["required"] == ["code", "quote", "uncertain"]
    assert server.keys == ["Bearer sk-secret"]


def test_a_quote_is_found_over_a_line_break_and_in_other_capitals(coder: TitleCoder, server: FakeLanguageModel) -> None:
    (code,) = _code(coder, server, _row("I50.9", "treated for Heart Failure")).codes
    assert NOTE[code.start : code.end] == "Treated for heart\nfailure"


def test_a_code_whose_words_are_not_in_the_note_is_taken_out_with_the_reason(coder: TitleCoder, server: FakeLanguageModel) -> None:
    note = _code(coder, server, _row("J44.9", "COPD"), _row("I21.9", "MI"))
    assert note.codes == ()
    assert _rule(note, "J449") == _rule(note, "I219") == [("evidence_missing", "removed", None)]


@pytest.mark.parametrize(
    ("code", "quote"),
    [("E11.9", "diabetes"), ("C50.919", "breast cancer"), ("I26.99", "pulmonary embolism")],
)
def test_what_the_note_denies_or_says_of_a_relative_is_taken_out(
    coder: TitleCoder, server: FakeLanguageModel, code: str, quote: str
) -> None:
    note = _code(coder, server, _row(code, quote))
    assert note.codes == ()
    assert _rule(note, code.replace(".", "")) == [("evidence_denied", "removed", None)]


def test_status_and_history_codes_may_rest_on_such_words(coder: TitleCoder, server: FakeLanguageModel) -> None:
    note = _code(coder, server, _row("Z80.3", "Mother had breast cancer"), _row("Z88.0", "Allergic to penicillin"))
    assert {code.code: code.decision for code in note.codes} == {"Z803": "review", "Z880": "review"}


def test_an_acute_condition_of_the_past_is_coded_as_history(coder: TitleCoder, server: FakeLanguageModel) -> None:
    server.always = Behaviour(text=_answer(_row("J18.9", "Pneumonia")))
    coder.note_reader = _open(server)
    (note,) = code_notes(coder, ["PAST MEDICAL HISTORY: Pneumonia in 2019.\n"])
    assert [code.code for code in note.codes] == ["Z8701"]
    assert _rule(note, "J189") == [("evidence_past", "replaced", "Z8701")]


def test_doubt_in_the_note_or_in_the_answer_sends_a_code_to_review(coder: TitleCoder, server: FakeLanguageModel) -> None:
    rows = [_row("J18.9", "community-acquired pneumonia"), _row("N18.32", "Chronic kidney disease, stage 3b", uncertain=True)]
    note = _code(coder, server, *rows)
    assert {code.code: code.decision for code in note.codes} == {"J189": "review", "N1832": "review"}
    assert ("uncertain_diagnosis", "flagged", None) in _rule(note, "N1832")


def test_the_same_rules_go_over_its_codes(coder: TitleCoder, server: FakeLanguageModel) -> None:
    rows = [_row("I50.9", "heart\nfailure"), _row("R06.02", "Shortness of breath"), _row("N18.3", "Chronic kidney disease")]
    note = _code(coder, server, *rows)
    assert _rule(note, "N183") == [("not_billable", "removed", None)]
    assert _rule(note, "R0602")[0][:2] == ("integral_symptom", "removed")
    assert [code.code for code in note.codes] == ["I509"]


def test_an_answer_with_words_around_it_and_codes_that_are_none_is_still_read(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = parse_diagnoses(f"Here you are:\n```json\n{_answer(_row(' e11.9', ' diabetes '), _row('n/a', 'x'))}\n``` Bye.")
    assert found == (Diagnosis("E119", "diabetes"),)
    assert "1 of 2 codes of an answer have not the form of a code" in caplog.text


@pytest.mark.parametrize(
    "answer", ["", "I cannot help.", "{}", "[1]", '{"diagnoses": [{"code": 1}]}', '{"diagnoses": 3}', "{" * 9000]
)
def test_an_answer_of_another_form_is_unreadable(answer: str) -> None:
    with pytest.raises(UnreadableAnswer, match="another form"):
        parse_diagnoses(answer)


def test_a_note_that_is_refused_costs_neither_the_others_nor_their_second_asking(server: FakeLanguageModel) -> None:
    reader = _open(server)
    server.always = Behaviour(text=_answer(_row("M10.9", "gout")))
    server.behave(Behaviour(text=_answer()), Behaviour(status=400))
    assert reader.read(["first"]) == [()]
    with pytest.raises(UnreadableAnswer, match="refused"):
        reader.read(["refused"])
    assert reader.read(["first", "third", "third"]) == [(), (Diagnosis("M109", "gout"),), (Diagnosis("M109", "gout"),)]
    assert len(server.requests) == 3


def test_where_everything_is_refused_no_note_is_called_bad(server: FakeLanguageModel) -> None:
    server.always = Behaviour(status=400)
    with pytest.raises(LanguageModelError, match="must know response_format json_schema") as caught:
        _open(server).read([NOTE])
    assert not isinstance(caught.value, LanguageModelUnreachable)
    assert "as told" not in str(caught.value), "what the server says may quote the note"


def test_a_server_that_is_away_stops_the_work_to_be_tried_again(server: FakeLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcoder_tasks.coding.note_reader.SERVER_RETRIES", 0)
    server.always = Behaviour(status=503)
    with pytest.raises(LanguageModelUnreachable, match="withheld") as caught:
        _open(server).read([NOTE, "other"])
    assert caught.value.retryable


def test_a_wrong_key_names_its_setting(server: FakeLanguageModel) -> None:
    server.always = Behaviour(status=401)
    with pytest.raises(LanguageModelError, match="check LLMCODER_NOTE_LLM_KEY"):
        _open(server).read([NOTE])


def test_several_notes_are_asked_at_once(server: FakeLanguageModel) -> None:
    server.always = Behaviour(text=_answer(), pause_seconds=0.2)
    assert _open(server).read([f"note {number}" for number in range(6)]) == [()] * 6
    assert server.most_at_once >= 3


def test_no_log_holds_a_note_even_where_everything_is_logged(
    coder: TitleCoder, server: FakeLanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        _code(coder, server, _row("M10.9", "gout"), _row("J44.9", "Zebulon"))
        logging.getLogger("check").debug("positive control: Zebulon")
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "Zebulon" in line] == ["positive control: Zebulon"]
    assert not any("Shortness" in line for line in said)


def test_a_model_folder_names_its_language_model_and_refuses_another(server: FakeLanguageModel) -> None:
    attached = NoteModel.of(_source(server))
    assert NoteModel.parse(attached.render()) == attached
    with pytest.raises(ModelError, match="reads notes by reader: set LLMCODER_NOTE_LLM_MODEL"):
        open_note_reader(attached, None)
    with pytest.raises(ModelError, match=r"the settings name other \(server\).*attach-note-model"):
        open_note_reader(attached, LanguageModel(server.url, "other"))
    with pytest.raises(ModelError, match=f"{NOTE_MODEL_NAME} cannot be read"):
        NoteModel.parse(b'{"schema_version": 9}')


def test_a_key_or_an_address_is_no_part_of_what_is_stored(server: FakeLanguageModel) -> None:
    stored = NoteModel.of(_source(server)).render().decode()
    assert "sk-secret" not in stored
    assert "127.0.0.1" not in stored


def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors"):
        NoteModel.of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    attached = NoteModel.of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    with pytest.raises(ModelError, match="files or prompt have changed since"):
        open_note_reader(attached, tmp_path)


def test_findings_hold_no_word_of_the_note(coder: TitleCoder, server: FakeLanguageModel) -> None:
    note = _code(coder, server, _row("J44.9", "Zebulon"), _row("E11.9", "diabetes"), _row("I26.99", "pulmonary embolism"))
    findings: Sequence[Finding] = note.findings
    assert len(findings) >= 3
    assert not any(word in finding.reason for finding in findings for word in ("Zebulon", "diabetes", "embolism"))
