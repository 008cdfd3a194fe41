"""Both dialects of CSV carry the same rows, and each can be told in the other."""

import csv
import io

import pytest

from pipelines.connectors.csv_dialects import BACKSLASH, DIALECTS, RFC4180, rows_of, to_rfc4180, writer

ODD = [
    "plain", "two words", 'the "REAR" house', "a,b", "tab\there", "line\nend", "carriage\rreturn", "both\r\n", "\\", "ends with \\",
    "\\n is no line end", "O'Malley", "Cañada ☂ 🎂", "x" * 1_048_576, '"', '""', "\\\"", "\\.", " spaces ", "nul \0 inside", "=1+1",
]  # fmt: skip


def told(rows, dialect: str) -> str:
    file = io.StringIO()
    writer(file, dialect).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (["ab", 20, "c d"], 'ab,20,"c d"'), ([None, None], ","), (["a", None, ""], 'a,,""'), (["O'Malley"], '"O\'Malley"'),
        (['say "hi"'], '"say \\"hi\\""'),
        (["a\nb"], '"a\\\nb"'), (["a\tb"], '"a\\\tb"'), (["C:\\new"], '"C:\\\\new"'), (["字"], "字"), (["🎂"], "🎂"),
    ],
)  # fmt: skip
def test_the_backslash_dialect_writes_what_the_old_serializer_wrote(row, line):
    assert told([row], BACKSLASH) == line + "\n"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_written_is_read_again_as_it_was(tmp_path, dialect):
    rows = [["first", text, "last"] for text in ODD]
    (tmp_path / "f.csv").write_text(told(rows, dialect), encoding="utf-8", newline="")
    assert list(rows_of(tmp_path / "f.csv", dialect)) == rows


def test_a_file_of_the_backslash_dialect_becomes_one_with_doubled_quotes(tmp_path):
    rows = [["a", text] for text in ODD]
    (tmp_path / "old.csv").write_text(told(rows, BACKSLASH), encoding="utf-8", newline="")
    assert to_rfc4180(tmp_path / "old.csv", tmp_path / "new.csv") == len(rows)
    assert (tmp_path / "new.csv").read_bytes().decode() == told(rows, RFC4180)
    assert list(rows_of(tmp_path / "new.csv", RFC4180)) == rows


def test_a_byte_that_is_no_letter_is_handed_on_and_not_dropped(tmp_path):
    (tmp_path / "old.csv").write_bytes(b'a,"x \xc3"\nb,\xe5\xae\x89\x8d\n')
    to_rfc4180(tmp_path / "old.csv", tmp_path / "new.csv")
    assert (tmp_path / "new.csv").read_bytes() == b"a,x \xc3\nb,\xe5\xae\x89\x8d\n"


def test_a_file_that_ends_in_the_middle_of_a_record_is_refused(tmp_path):
    (tmp_path / "old.csv").write_text('a,"b\\"\n')
    with pytest.raises(csv.Error, match="unexpected end of data"):
        list(rows_of(tmp_path / "old.csv", BACKSLASH))
