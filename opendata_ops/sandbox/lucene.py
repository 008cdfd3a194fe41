"""Searches in Lucene's words, as CKAN asks Solr: read once, then a test of documents. No ranking and no stemming: a word is looked for as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

READ_IN_WORDS = ("name", "title", "notes", "tags", "text")

Test = Callable[[dict[str, Any]], bool]
WORD = re.compile(r'\s*(\(|\)|\+|-(?=\S)|\{![^}]*\}|[A-Za-z_][\w.]*:|\[[^\]]*\]|"(?:[^"\\]|\\.)*"|(?:[^\s()"\\]|\\.)+)')


class Query:
    """One query in Lucene's words, as a test of a document: `field:value`, `field:(a OR b)`, `+`, `-`, AND, OR, NOT, brackets, `*`."""

    def __init__(self, text: str):
        self._words = WORD.findall(text)
        self._at = 0
        self.test = self._clauses("text")

    def _peek(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def _take(self) -> str:
        word = self._peek()
        self._at += 1
        return word

    def _clauses(self, field: str) -> Test:
        """Clauses up to a closing bracket: by AND unless OR stands between them, which then joins what stands at its sides."""
        either: list[list[Test]] = [[]]
        while (word := self._peek()) and word != ")":
            if word in ("AND", "&&"):
                self._take()
            elif word in ("OR", "||"):
                self._take()
                either.append([])
            else:
                either[-1].append(self._clause(field))
        return lambda document: any(all(test(document) for test in tests) for tests in either if tests) or either == [[]]

    def _clause(self, field: str) -> Test:
        word = self._take()
        if word == "+":
            return self._clause(field)
        if word in ("-", "NOT", "!"):
            unwanted = self._clause(field)
            return lambda document: not unwanted(document)
        if word == "(":
            inner = self._clauses(field)
            self._take()
            return inner
        if word == "*:*" or word.startswith("{!"):
            return lambda document: True
        if word.endswith(":") and len(word) > 1:
            return self._clause(word[:-1])
        return _holds(field, word)


def _holds(field: str, word: str) -> Test:
    """A test whether a field has a value: exactly, by `*`, or within `[from TO to]`."""
    if word.startswith("["):
        low, _, high = word[1:-1].partition(" TO ")

        def between(document: dict[str, Any]) -> bool:
            values = values_of(document, field)
            return any((low == "*" or value >= low) and (high == "*" or value <= high) for value in values)

        return between
    quoted = word.startswith('"')
    wanted = re.sub(r"\\(.)", r"\1", word[1:-1] if quoted else word)
    if field == "text":
        return lambda document: any(wanted.lower() in value.lower() for name in READ_IN_WORDS for value in values_of(document, name))
    if "*" in wanted and not quoted:
        pattern = re.compile(".*".join(map(re.escape, wanted.split("*"))), re.IGNORECASE | re.DOTALL)
        return lambda document: any(pattern.fullmatch(value) for value in values_of(document, field))
    if field in READ_IN_WORDS and field not in ("name", "tags"):
        return lambda document: any(wanted.lower() in value.lower() for value in values_of(document, field))
    return lambda document: wanted in values_of(document, field)


def values_of(document: dict[str, Any], field: str) -> list[str]:
    value = document.get(field)
    if value is None:
        return []
    return [str(entry).lower() if isinstance(entry, bool) else str(entry) for entry in (value if isinstance(value, list) else [value])]
