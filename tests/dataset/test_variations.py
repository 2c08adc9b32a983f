"""Every kind of variation: hand-worked examples, and properties over real titles."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from llmcoder_tasks.dataset import frames
from llmcoder_tasks.dataset.abbreviating import Abbreviator
from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.misspelling import Misspeller
from llmcoder_tasks.dataset.reordering import reorder_title
from llmcoder_tasks.dataset.sentences import Narrator
from llmcoder_tasks.dataset.titles import Vocabulary, normalise_text, parse_title
from llmcoder_tasks.dataset.variations import VARIED_SCENARIOS, Variations
from llmcoder_tasks.icd10cm.code_set import Code, CodeSet

TITLES = (
    "Abscess of lung with pneumonia",
    "Pain in unspecified knee",
    "Fracture of shaft of right tibia, initial encounter",
    "Injury of ilium",
    "Injury of ileum",
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of_titles(TITLES)


@pytest.fixture(scope="module")
def variations(code_set: CodeSet) -> Variations:
    return Variations.of_release(code_set, load_lexicon(), seed=3)


def _draws(count: int = 60) -> list[Chance]:
    return [Chance("test", number) for number in range(count)]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Abscess of lung with pneumonia", {"Lung abscess with pneumonia"}),
        ("Anemia, unspecified", {"Unspecified anemia"}),
        ("Primary osteoarthritis, right knee", {"Right knee primary osteoarthritis", "Primary osteoarthritis of right knee"}),
        ("Open bite of left hand, sequela", {"Sequela of left hand open bite", "Sequelae of open bite of left hand"}),
        ("Sprain of jaw, bilateral, initial encounter", {"Initial encounter for bilateral sprain of jaw"}),
        ("Toxic effect of lead, assault, initial encounter", {"Initial encounter for assault by toxic effect of lead"}),
        (
            "Displaced fracture of shaft of right tibia, subsequent encounter for closed fracture with malunion",
            {
                "Subsequent encounter for closed displaced fracture of shaft of right tibia with malunion",
                "Right tibia shaft displaced fracture, subsequent encounter for closed fracture with malunion",
            },
        ),
    ],
)
def test_titles_are_reordered_as_people_speak(title: str, expected: set[str], vocabulary: Vocabulary) -> None:
    written = {reorder_title(parse_title(title), vocabulary, chance) for chance in _draws(300)}
    assert expected <= written


def test_reordering_neither_loses_nor_invents_a_word_of_meaning(code_set: CodeSet) -> None:
    vocabulary = Vocabulary.of_titles(code_set.titles.values())
    small = {"of", "in", "for", "by", "the", "during", "not", "elsewhere", "classified"}
    small |= {"encounter", "fracture", "sequela", "sequelae"}
    for code, title in code_set.titles.items():
        written = reorder_title(parse_title(title), vocabulary, Chance(0, code))
        assert set(normalise_text(title).split()) - small == set(normalise_text(written).split()) - small, (title, written)


def test_a_list_in_a_title_is_not_torn_apart(vocabulary: Vocabulary) -> None:
    title = parse_title("Strain of muscle, fascia and tendon of hip")
    assert all("muscle, fascia and tendon of hip" in reorder_title(title, vocabulary, chance) for chance in _draws())


def test_dictionary_abbreviations_replace_the_longest_term() -> None:
    abbreviator = Abbreviator.of_lexicon(load_lexicon())
    written = {abbreviator.abbreviate("Type 2 diabetes mellitus without complications", chance).lower() for chance in _draws(200)}
    assert any(text.startswith(("dm2 ", "t2dm ")) for text in written)
    assert any("w/o" in text for text in written)
    assert not any("dm 2" in text for text in written)


def test_words_outside_the_dictionary_are_cut_after_a_consonant_or_lose_vowels() -> None:
    abbreviator = Abbreviator({})
    written = {abbreviator.abbreviate("Coccidioidomycosis", chance).lower() for chance in _draws(400)}
    cut = {text for text in written if text.endswith(".")}
    assert "coccidioidom." in cut | {f"{text}." for text in written}
    assert any(not re.search("[aeiou]", text[1:-1]) for text in written)


def test_british_spelling_keeps_capitals(vocabulary: Vocabulary) -> None:
    misspeller = Misspeller.of_lexicon(load_lexicon(), vocabulary)
    assert misspeller.respell("Anemia with hemorrhage") == "Anaemia with haemorrhage"


def test_a_slip_never_makes_another_word_of_the_release(vocabulary: Vocabulary) -> None:
    misspeller = Misspeller.of_lexicon(load_lexicon(), vocabulary)
    written = {misspeller.misspell("Injury of ilium", chance) for chance in _draws(2000)}
    assert len(written) > 50
    assert not any("ileum" in text for text in written)


def test_every_long_enough_title_gets_a_typo_and_numerals_none(code_set: CodeSet) -> None:
    misspeller = Misspeller.of_lexicon(load_lexicon(), Vocabulary.of_titles(code_set.titles.values()))
    for code, title in code_set.titles.items():
        typed = misspeller.misspell(title, Chance(0, code))
        assert typed != title or not re.search(r"[A-Za-z]{5}", title), title
        numerals = re.compile(r"\b(?:II|III|IV|IIIA|IIIB|IIIC|[0-9]+)\b")
        assert numerals.findall(typed) == numerals.findall(title)


def test_sentences_weave_the_encounter_and_the_side_into_prose(code_set: CodeSet) -> None:
    narrator = Narrator.of_lexicon(load_lexicon(), Vocabulary.of_titles(code_set.titles.values()))
    title = parse_title("Sprain of right ankle, subsequent encounter")
    written = [narrator.tell("S93401D", title, chance) for chance in _draws(200)]
    assert all(
        re.search("sprain of (?:(?:her|his|my|the) )?(?:right ankle|ankle on the right side)", text.lower()) for text in written
    )
    assert all(re.search("subsequent|follow|f/u", text.lower()) for text in written)
    assert any("her right ankle" in text for text in written)
    assert any("my right ankle" in text and text.startswith("I ") for text in written)


def test_no_opening_closing_or_job_names_a_condition_of_the_release(variations: Variations) -> None:
    beside = (
        *frames.OPENINGS,
        *frames.CLOSINGS,
        *frames.PERSON_CLOSINGS,
        *frames.BESIDE_BEFORE,
        *frames.BESIDE_AFTER,
        *frames.JOBS,
    )
    names = {name for name in variations.code_by_name if len(name) > 5}
    for text in beside:
        words = normalise_text(text).split()
        parts = {" ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)}
        assert not parts & names, text


def test_sentences_of_one_title_hardly_ever_repeat(code_set: CodeSet) -> None:
    narrator = Narrator.of_lexicon(load_lexicon(), Vocabulary.of_titles(code_set.titles.values()))
    title = parse_title("Primary osteoarthritis, right hip")
    written = {narrator.tell("M1611", title, chance) for chance in _draws(1000)}
    assert len(written) > 900
    assert all("osteoarthritis" in text.lower() and "right" in text.lower() and "hip" in text.lower() for text in written)


def test_newborns_have_neither_a_job_nor_years(code_set: CodeSet) -> None:
    narrator = Narrator.of_lexicon(load_lexicon(), Vocabulary.of_titles(code_set.titles.values()))
    written = [narrator.tell("P599", parse_title("Neonatal jaundice, unspecified"), chance) for chance in _draws(300)]
    assert not any(re.search(r"\b0|\byears?\b|^I | (?:man|woman|teacher)\b", text.replace("This year", "")) for text in written)


def test_an_article_fits_the_number_or_word_behind_it(code_set: CodeSet) -> None:
    narrator = Narrator.of_lexicon(load_lexicon(), Vocabulary.of_titles(code_set.titles.values()))
    written = " ".join(narrator.tell("J459", parse_title("Asthma"), chance) for chance in _draws(2000)).lower()
    assert "an 8" in written
    assert not re.search(r"\ba (?:8\d|18|11)-year|\ba (?:accountant|engineer)|\ban [1-7]", written.replace("an 18", ""))


def test_held_out_variations_show_one_kind_and_taught_ones_up_to_three(code_set: CodeSet) -> None:
    code = Code("X001", True, "Fracture of lung", "Fracture of lung")
    variations = Variations.of_release(replace(code_set, codes=(code,), terms=()), load_lexicon(), seed=0)
    taught = {variations.vary("reordered", "X001", ordinal, taught=True) for ordinal in range(200)}
    held_out = {variations.vary("reordered", "X001", ordinal, taught=False) for ordinal in range(200)}
    assert held_out <= {"Lung fracture", "Lung fractures", ""}
    assert any("fx" in text for text in taught)
    assert any(not re.search("[Ff]ract|[Ff]x|fr[ax]", text) for text in taught)


def test_people_fit_their_conditions(code_set: CodeSet) -> None:
    narrator = Narrator.of_lexicon(load_lexicon(), Vocabulary.of_titles(code_set.titles.values()))
    assert not any(narrator.cast("O3100X0", "Papyraceous fetus", chance).male for chance in _draws())
    assert all(narrator.cast("N401", "Benign prostatic hyperplasia", chance).male for chance in _draws())
    assert all(narrator.cast("P599", "Neonatal jaundice", chance).age == 0 for chance in _draws())


def test_no_placeholder_and_no_double_article_is_left(variations: Variations) -> None:
    for code in variations.sources:
        for ordinal in range(3):
            text = variations.vary("sentences", code, ordinal, taught=False)
            assert not re.search(r"[{}]|\ba an?\b|\ban a\b|  ", text), text


def test_variations_are_the_same_in_any_order_of_work(code_set: CodeSet) -> None:
    first = Variations.of_release(code_set, load_lexicon(), seed=3)
    again = Variations.of_release(code_set, load_lexicon(), seed=3)
    other_seed = replace(first, seed=4)
    codes = list(first.sources)[:60]
    forwards = {(s, c): first.vary(s, c, 0, taught=True) for s in VARIED_SCENARIOS for c in codes}
    backwards = {(s, c): again.vary(s, c, 0, taught=True) for c in reversed(codes) for s in VARIED_SCENARIOS}
    assert forwards == backwards
    assert any(other_seed.vary("typos", code, 0, taught=True) != forwards["typos", code] for code in codes)


def test_a_variation_that_is_another_codes_name_is_never_given(code_set: CodeSet) -> None:
    # The only other order of the first title is the name of the second code.
    codes = (
        Code("X001", True, "Lung abscess", "Abscess of lung"),
        Code("X002", True, "Lung abscess", "Lung abscess"),
        Code("X003", True, "Colic", "Abscess of colon"),
    )
    variations = Variations.of_release(replace(code_set, codes=codes, terms=()), load_lexicon(), seed=0)
    assert {variations.vary("reordered", "X001", ordinal, taught=False) for ordinal in range(100)} == {""}
    assert "Colon abscess" in {variations.vary("reordered", "X003", ordinal, taught=False) for ordinal in range(100)}


def test_every_condition_of_a_line_is_mentioned(variations: Variations) -> None:
    for code in list(variations.sources)[::7]:
        for turn in range(12):
            assert variations.mention(code, Chance(turn, code)).strip(), f"{code} is in the answer and not in the text"
