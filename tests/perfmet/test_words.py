"""Words: names are cut as the original cuts them, and looked up in the list that the settings name."""

import gzip

import pytest

from perfmet import words
from pipelines.errors import SetupError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("bdngHeightMetres", ["bdng", "height", "metres"]),
        ("Test Camel_", ["test", "camel"]),
        ("SHAPE__Area", ["shape", "area"]),
        ("HTTPServer", ["http", "server"]),
        ("eventDate2020", ["event", "date2020"]),
        ("FSA (Postal)", ["fsa", "(", "postal)"]),
        ("", []),
        ("__", []),
        ("event-id\tname", ["event", "id", "name"]),
    ],
)
def test_a_name_is_cut_into_the_words_that_the_original_sees(name, found):
    assert words.tokens(name) == found


def test_a_name_without_a_word_has_no_english_in_it():
    assert words.english_share("__", words.lexicon({"id"})) == 0


@pytest.mark.parametrize("word", ["civic", "centre", "center", "death", "licenses", "place", "of", "time", "period", "name", "neighbourhoods", "id"])
def test_the_bundled_list_knows_what_wordnet_knew_of_the_citys_columns(word):
    assert words.english()(word)


@pytest.mark.parametrize("name", ["CIVIC_CENTRE", "DEATH_LICENSES", "PLACE_OF_DEATH", "TIME_PERIOD"])
def test_the_columns_of_the_death_registry_are_english_altogether(name):
    assert words.english_share(name, words.english()) == 1


@pytest.mark.parametrize("word", ["bdng", "f1", "objectid", "xqz", "date2020", "(", ""])
def test_the_bundled_list_does_not_know_what_is_no_word(word):
    assert not words.english()(word)


@pytest.mark.parametrize("plural", ["events", "classes", "boxes", "branches", "wishes", "firemen", "cities", "knives", "fezzes"])
def test_a_plural_is_known_by_its_singular(plural):
    assert words.lexicon({"event", "class", "box", "branch", "wish", "fireman", "city", "knif", "fezz"})(plural)


def test_a_plural_ending_alone_is_no_word():
    assert not words.lexicon({"", "y"})("ies")


@pytest.mark.parametrize("pack", [lambda text: text, gzip.compress])
def test_a_city_names_a_list_of_its_own(tmp_path, pack):
    path = tmp_path / "ours.txt"
    path.write_bytes(pack(b"BDNG\nfsa\n\n"))

    knows = words.english(str(path))

    assert knows("bdng") and knows("fsa") and not knows("event") and not knows("")


def test_a_list_that_is_not_there_is_told_with_its_setting(tmp_path):
    with pytest.raises(SetupError) as caught:
        words.english(str(tmp_path / "no.txt"))
    assert "no.txt" in caught.value.message and "QUALITY_WORDS" in caught.value.next_step


def test_the_licence_lies_beside_the_list_and_the_list_is_small():
    assert words.BUNDLED.stat().st_size < 700_000
    assert "Copyright 2000-2011 by Kevin Atkinson" in (words.BUNDLED.parent / "LICENCE").read_text()
