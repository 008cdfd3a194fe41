"""What a webhook is told: the sentences, word for word, and posts that are short enough."""

import json

import pytest

from pipelines.upkeep.notices import BADLY, LONGEST, MOST_POSTS, PERHAPS, WELL, Ending, posts, sentence, split


def test_success_is_told_with_its_counts_and_the_message():
    ending = Ending("Loading Socrata data", WELL, "All stages went well.", inserted=1_234_567, updated=5, prefix="Testing")
    assert sentence(ending) == (
        'Testing :grin: "Loading Socrata data" loaded [1,234,567] records, updated [5] records, and finished with message "All stages went well."'
    )


def test_failure_is_told_with_its_message():
    ending = Ending("Requests", BADLY, "Portal said 503.")
    assert sentence(ending) == ' :rage: FAILURE: Something went wrong in Requests: "Portal said 503."'


def test_what_is_neither_is_told_as_a_doubt():
    said = sentence(Ending("Requests", PERHAPS, "3 rows; usually 400."))
    assert said == " :confused: Something might have failed in Requests: 3 rows; usually 400."


@pytest.mark.parametrize(("how", "words"), [(WELL, '"All stages went well."'), (BADLY, '"No reason was given."'), (PERHAPS, "No reason was given.")])
def test_a_block_without_a_message_is_told_of_in_words(how, words):
    assert sentence(Ending("Requests", how, "")).endswith(words)


def test_quotes_of_every_kind_survive():
    message = """it's "so" `here`, ‘there’ and \\"there\\"; 1' or '1'='1"""
    (post,) = posts(Ending('The "big" one', BADLY, message))
    arrived = json.loads(json.dumps(post))["text"]
    assert arrived == f' :rage: FAILURE: Something went wrong in The "big" one: "{message}"'


def test_what_slack_would_take_for_a_command_is_plain_text():
    (post,) = posts(Ending("R&D", BADLY, "<!channel> said <https://x>"))
    assert post["text"] == ' :rage: FAILURE: Something went wrong in R&amp;D: "&lt;!channel&gt; said &lt;https://x&gt;"'


def test_a_text_of_just_the_limit_is_one_post_and_one_sign_more_makes_two():
    room = LONGEST - len(sentence(Ending("t", BADLY, "x")))
    assert len(posts(Ending("t", BADLY, "x" * (room + 1)))) == 1
    assert [len(post["text"]) for post in posts(Ending("t", BADLY, "x" * (room + 2)))][0] <= LONGEST
    assert len(posts(Ending("t", BADLY, "x" * (room + 2)))) == 2


def test_a_long_text_is_split_at_line_ends_and_nothing_is_lost():
    lines = [f"line {number}: " + "words " * 30 for number in range(60)]
    pieces = [post["text"] for post in posts(Ending("t", BADLY, "\n".join(lines)))]
    assert len(pieces) > 3
    assert all(len(piece) <= LONGEST for piece in pieces)
    assert "\n".join(pieces) == sentence(Ending("t", BADLY, "\n".join(lines)))


def test_a_text_without_line_ends_is_split_at_spaces():
    pieces = split("word " * 2_000, 3_000)
    assert " ".join(pieces) == "word " * 2_000 and all(set(piece.split()) <= {"word"} for piece in pieces)


def test_a_text_without_spaces_is_split_anyway():
    assert split("x" * 7_000, 3_000) == ["x" * 3_000, "x" * 3_000, "x" * 1_000]


def test_an_escaped_sign_is_never_cut():
    pieces = [post["text"] for post in posts(Ending("t", BADLY, "<" * 2_500))]
    assert len(pieces) > 3
    assert all(len(piece) <= LONGEST and piece.count("&") == piece.count(";") for piece in pieces)
    assert "".join(pieces).count("&lt;") == 2_500


def test_a_flood_is_cut_short_and_says_so():
    told = posts(Ending("t", BADLY, "x" * 1_000_000))
    assert len(told) == MOST_POSTS
    assert "more characters, on the page of the block." in told[-1]["text"]
