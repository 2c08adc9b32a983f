"""The phrase coder on the whole release: what it reads, where it cuts, what it refuses, and that neighbours change nothing."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmcoder_tasks.coding.calibration import Calibration, Threshold
from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.coding.combination import LEXICAL_FEATURES, TOGETHER_FEATURES
from llmcoder_tasks.errors import ModelError

VARIATIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "variations"


class FixedScorer:
    """A language model that has one favourite code, and counts the texts it is asked about."""

    def __init__(self, favourite: str) -> None:
        self.favourite = favourite
        self.texts: list[str] = []

    def score(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        self.texts += texts
        return [[-0.1 if code == self.favourite else -12.0 for code in codes] for codes in candidates]


def _fit(weight: float, threshold: float) -> CoderFit:
    evidence = Threshold(value=threshold, n=400, accepted=300, errors=0, error_bound=0.00994, coverage=0.75)

    def calibration(names: tuple[str, ...]) -> Calibration:
        # Confidence follows similarity alone: logistic(10 x similarity - 7).
        coefficients = (10.0,) + (0.0,) * (len(names) - 1)
        return Calibration(names, coefficients, -7.0, 400, 0.01, (), evidence)

    return CoderFit("f", "m", "d", "FY2026-April", weight, calibration(LEXICAL_FEATURES), calibration(TOGETHER_FEATURES))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Type 2 diabetes mellitus without complications", "E119"),
        ("TYPE 2 DIABETES MELLITUS WITHOUT COMPLICATIONS.", "E119"),
        ("Reiter's disease, lft. hand", "M02342"),
        ("Reiter’s disease, left hand", "M02342"),
        ("Nondisplacd fractur of coracoid proces, left shoulder, subsequnt encountr for fracture with nonunoin", "S42135K"),
        ("non-disp. fx of coracoid process, lt shoulder, subs encntr for fx w/ nonunion", "S42135K"),
        ("COPD", "J449"),  # a spoken name
        ("urinary tract infection", "N390"),  # a title without what goes unsaid
        ("Meniere’s disease, right ear", "H8101"),
        ("Ménière's disease, right ear", "H8101"),
        ("Classical cholera", "A000"),  # an inclusion term
        ("Striate keratitis, right eye", "H16111"),  # an inclusion term of a header, with what its child adds
    ],
)
def test_a_phrase_written_in_many_ways_gives_its_code(coder: Coder, text: str, code: str) -> None:
    assert coder.predict_lexical([text]) == [(code,)]


def test_what_the_release_does_not_hold_is_like_no_title(coder: Coder) -> None:
    for scored in coder.code_phrases(["glow-in-the-dark marmoset bite of the third antenna"]):
        assert all(item.similarity < 0.7 for item in scored)


def test_every_title_is_found_by_itself(coder: Coder) -> None:
    sample = random.Random(1).sample(list(coder.code_set.titles.items()), 1000)
    answers = coder.predict_lexical([title for _, title in sample])
    assert [answer for (code, _), answer in zip(sample, answers, strict=True) if answer != (code,)] == []


def test_words_in_another_order_are_told_apart(coder: Coder) -> None:
    with_body = "Laceration with foreign body of right thumb without damage to nail, initial encounter"
    without_body = "Laceration without foreign body of right thumb with damage to nail, initial encounter"
    assert coder.predict_lexical([with_body, without_body]) == [("S61021A",), ("S61111A",)]


@pytest.mark.parametrize(
    "text",
    [
        "Type 2 diabetes mellitus without complications; essential (primary) hypertension; gout, unspecified",
        "Type 2 diabetes mellitus without complications, essential (primary) hypertension, gout, unspecified",
        "Discharge diagnoses:\n1. Type 2 diabetes mellitus without complications\n2. Essential (primary) hypertension\n3. Gout",
        "Type 2 diabetes mellitus without complications, essential (primary) hypertension and gout, unspecified.",
        "E11.9, I10; M10.9",
    ],
)
def test_several_conditions_come_out_in_order_of_mention(coder: Coder, text: str) -> None:
    assert coder.predict_lexical([text]) == [("E119", "I10", "M109")]


def test_offsets_are_those_of_the_condition_in_the_original_text(coder: Coder) -> None:
    text = "  Gout, unspecified;  essential (primary) hypertension \u2764"
    found = coder.code_text(text)
    assert [text[prediction.start : prediction.end] for prediction in found] == [
        "Gout, unspecified",
        "essential (primary) hypertension \u2764",
    ]


def test_a_comma_inside_a_title_does_not_cut_it(coder: Coder) -> None:
    title = coder.code_set.titles["S72001A"]
    assert title.count(",") == 1
    found = coder.code_text(f"{title}; Gout, unspecified")
    assert [prediction.code for prediction in found] == ["S72001A", "M109"]
    assert (found[0].start, found[0].end) == (0, len(title))


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("E11.9", ("E119",)),
        ("e11.9", ("E119",)),
        ("ICD: E119.", ("E119",)),
        ("Gout, unspecified (M10.9)", ("M109",)),
        ("I10", ("I10",)),
        ("vitamin B12 deficiency anemia", None),  # B12 is no code
        ("E11", None),  # a header
        ("Z99.99999", None),
    ],
)
def test_a_code_in_the_text_is_taken_when_it_is_billable(coder: Coder, text: str, codes: tuple[str, ...] | None) -> None:
    found = coder.predict_lexical([text])[0]
    if codes is not None:
        assert found == codes
    assert set(found) <= set(coder.code_set.titles)
    assert not {"B12", "E11", "Z9999999"} & set(found)


@pytest.mark.parametrize(
    "text", ["", "   \n\t", "\U0001f642\U0001f642", "\x00\x07\x1b", "....,,,;;;", "qwrtzp xkcdvb", "1234567890"]
)
def test_nothing_to_code_gives_no_code(coder: Coder, text: str) -> None:
    assert coder.code_text(text) == ()
    assert coder.code_phrases([text]) == [()]


def test_a_line_of_a_hundred_kilobytes_is_coded_in_seconds(coder: Coder) -> None:
    started = time.process_time()
    for text in ("x" * 100_000, "gout and " * 11_000, "fracture " * 11_000, "a,b;" * 25_000):
        for prediction in coder.code_text(text):
            assert 0 <= prediction.start < prediction.end <= len(text)
    assert time.process_time() - started < 20


def test_control_characters_and_emoji_do_not_hide_a_condition(coder: Coder) -> None:
    assert coder.predict_lexical(["\x00Gout,\x07 unspecified \U0001f642"]) == [("M109",)]


def test_neighbours_order_and_batches_change_nothing(coder: Coder) -> None:
    titles = random.Random(2).sample(list(coder.code_set.titles.values()), 60)
    texts = [title.replace("e", "", 1) for title in titles] + ["", "Gout, unspecified; I10"]
    together = coder.predict_lexical(texts)
    assert together == [coder.predict_lexical([text])[0] for text in texts]
    assert coder.predict_lexical(texts[::-1]) == together[::-1]


def test_without_a_fit_nothing_passes_without_a_person(coder: Coder) -> None:
    assert [prediction.decision for prediction in coder.code_text("Gout, unspecified")] == ["review"]
    with pytest.raises(ModelError, match="no language model"):
        coder.predict_together(["gout"])


def test_the_fitted_weight_decides_between_words_and_model(coder: Coder) -> None:
    text = "gout right ankle and foot unspecified"
    lexical = coder.predict_lexical([text])[0][0]
    alternatives = [scored.code for scored in coder.code_phrases([text])[0]]
    other = next(code for code in alternatives if code != lexical)
    trusting_model = Coder(coder.code_set, index=coder.index, model=FixedScorer(other), fit=_fit(10.0, 0.9))
    trusting_words = Coder(coder.code_set, index=coder.index, model=FixedScorer(other), fit=_fit(5000.0, 0.9))
    assert trusting_model.predict_together([text]) == [(other,)]
    assert trusting_words.predict_together([text]) == [(lexical,)]
    assert trusting_model.predict_lexical([text]) == [(lexical,)]


def test_the_model_is_not_asked_about_a_title_word_for_word(coder: Coder) -> None:
    scorer = FixedScorer("A000")
    hybrid = Coder(coder.code_set, index=coder.index, model=scorer, fit=_fit(100.0, 0.9))
    assert hybrid.predict_together(["Gout, unspecified", "gout, unspecifid", "gout, unspecifid"]) == [
        ("M109",),
        ("M109",),
        ("M109",),
    ]
    assert len(scorer.texts) <= 1


def test_confidence_decides_and_alternatives_share_the_rest(coder: Coder) -> None:
    fitted = Coder(coder.code_set, index=coder.index, fit=_fit(100.0, 0.95))
    # A title is similar by 1: logistic(10 - 7) = 0.9526; it passes 0.95 and not 0.96.
    (prediction,) = fitted.code_text("Gout, unspecified")
    assert (prediction.confidence, prediction.decision) == (0.9526, "auto")
    strict = Coder(coder.code_set, index=coder.index, fit=_fit(100.0, 0.96))
    assert strict.code_text("Gout, unspecified")[0].decision == "review"
    scored = fitted.code_phrases(["Gout, unspecified"])[0]
    assert sum(item.confidence for item in scored) == pytest.approx(1.0, abs=1e-6)
    assert all(0.0 <= item.confidence <= scored[0].confidence for item in scored)


def test_a_folder_without_coder_file_names_the_cure(coder: Coder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="llmcoder fit-coder"):
        Coder.open(tmp_path, coder.code_set)


@pytest.mark.parametrize(
    ("scenario", "least"), [("reordered", 0.98), ("abbreviations", 0.98), ("typos", 0.98), ("sentences", 0.88)]
)
def test_published_variations_are_coded_by_words_alone(coder: Coder, scenario: str, least: float) -> None:
    path = VARIATIONS / f"{scenario}.jsonl"
    if not path.is_file():
        pytest.skip("the published variations are not beside the project")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    answers = coder.predict_lexical([row["text"] for row in rows])
    right = sum(set(answer) == set(row["codes"]) for row, answer in zip(rows, answers, strict=True))
    assert right / len(rows) >= least


def test_prose_that_names_nothing_is_left_out_where_another_part_names_something(coder: Coder) -> None:
    fitted = Coder(coder.code_set, index=coder.index, fit=_fit(100.0, 0.95))
    text = "Essential (primary) hypertension. Vital signs are stable."
    assert [prediction.code for prediction in fitted.code_text(text)] == ["I10"]


def test_what_stands_in_a_list_of_its_own_lines_is_never_left_out(coder: Coder) -> None:
    fitted = Coder(coder.code_set, index=coder.index, fit=_fit(100.0, 0.95))
    predictions = fitted.code_text("1. Gout, unspecified\n2. Vital signs are stable")
    assert [prediction.decision for prediction in predictions] == ["auto", "review"]
