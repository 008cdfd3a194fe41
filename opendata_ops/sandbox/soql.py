"""SoQL, as much of it as clients of city data speak: text → tree → plain functions over a row.

Types are those of the X-SODA2-Types header. Values are compared in a comparable form: numbers as numbers, timestamps as
ISO text (which sorts by time), text as text with case (2.1). A comparison with null is neither true nor false.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

TIMESTAMPS = ("floating_timestamp", "fixed_timestamp")
AGGREGATES = ("count", "max", "min", "sum", "avg")
_CLAUSES = ("select", "where", "group", "having", "order", "limit", "offset", "search")

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^']|'')*')
    | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)
    | `(?P<quoted>[^`]+)`
    | (?P<name>:\*|:?@?[A-Za-z_][A-Za-z0-9_@]*)
    | (?P<mark><=|>=|!=|<>|==|\|\||[=<>(),*+/-])
    )""",
    re.VERBOSE,
)


class SoqlError(Exception):
    """A query that the portal refuses: `code` as in `query.soql.no-such-column`, and what it says with it."""

    def __init__(self, code: str, message: str, **data: Any):
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True)
class Column:
    name: str


@dataclass(frozen=True)
class Literal:
    value: Any
    type: str


@dataclass(frozen=True)
class Call:
    """An operator or a function: `=`, `and`, `between`, `count`, … over its arguments. `count(*)` has no argument."""

    name: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Star:
    """`*` (the dataset's columns) or `:*` (the system's)."""

    system: bool = False


@dataclass
class Query:
    """The clauses of one query; `select` empty means `*`."""

    select: list[tuple[Any, str]] = field(default_factory=list)
    where: Any = None
    group: list[Any] = field(default_factory=list)
    having: Any = None
    order: list[tuple[Any, bool]] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    search: str = ""

    @property
    def aggregates(self) -> bool:
        return bool(self.group) or any(is_aggregate(expression) for expression, _ in self.select)


def is_aggregate(expression: Any) -> bool:
    return isinstance(expression, Call) and (expression.name in AGGREGATES or any(is_aggregate(arg) for arg in expression.args))


def conjuncts(expression: Any) -> Iterator[Any]:
    """The parts of a condition that must all be true."""
    if isinstance(expression, Call) and expression.name == "and":
        for arg in expression.args:
            yield from conjuncts(arg)
    elif expression is not None:
        yield expression


# text → tree


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        position = 0
        while position < len(text.rstrip()):
            found = _TOKEN.match(text, position)
            if not found:
                raise self._refuse(f"at position {position + 1}: {text[position:].strip()[:20]!r}")
            self.tokens.append((found.lastgroup or "", found.group(found.lastgroup or 0)))
            position = found.end()

    def _refuse(self, what: str) -> SoqlError:
        return SoqlError("query.compiler.malformed", f"Could not parse SoQL query {self.text!r}: {what}", query=self.text)

    def peek(self, *words: str) -> bool:
        """Whether the next token is one of these words or marks (words in lower case)."""
        if self.at >= len(self.tokens):
            return False
        kind, text = self.tokens[self.at]
        return kind in ("name", "mark") and text.lower() in words

    def take(self, *words: str) -> bool:
        if self.peek(*words):
            self.at += 1
            return True
        return False

    def need(self, word: str) -> None:
        if not self.take(word):
            raise self._refuse(f"expected {word!r}, got {self._next_text()!r}")

    def _next_text(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else "end of input"

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise self._refuse(f"did not expect {self._next_text()!r}")

    def listed(self, one: Callable[[], Any]) -> list[Any]:
        found = [one()]
        while self.take(","):
            found.append(one())
        return found

    # expressions, loosest binding first
    def expression(self) -> Any:
        left = self._and()
        while self.take("or"):
            left = Call("or", (left, self._and()))
        return left

    def _and(self) -> Any:
        left = self._not()
        while self.take("and"):
            left = Call("and", (left, self._not()))
        return left

    def _not(self) -> Any:
        return Call("not", (self._not(),)) if self.take("not") else self._comparison()

    def _comparison(self) -> Any:
        left = self._sum()
        while True:
            if self.take("is"):
                negated = self.take("not")
                self.need("null")
                left = Call("is not null" if negated else "is null", (left,))
                continue
            negated = self.take("not")
            if self.take("between"):
                low = self._sum()
                self.need("and")
                made: Any = Call("and", (Call(">=", (left, low)), Call("<=", (left, self._sum()))))
            elif self.take("in"):
                self.need("(")
                made = Call("in", (left, *self.listed(self._sum)))
                self.need(")")
            elif self.take("like"):
                made = Call("like", (left, self._sum()))
            elif negated:
                raise self._refuse(f"expected between, in or like after not, got {self._next_text()!r}")
            elif self.peek("=", "==", "!=", "<>", "<", "<=", ">", ">="):
                mark = self.tokens[self.at][1]
                self.at += 1
                made = Call({"==": "=", "<>": "!="}.get(mark, mark), (left, self._sum()))
            else:
                return left
            left = Call("not", (made,)) if negated else made

    def _sum(self) -> Any:
        left = self._product()
        while self.peek("+", "-", "||"):
            mark = self.tokens[self.at][1]
            self.at += 1
            left = Call(mark, (left, self._product()))
        return left

    def _product(self) -> Any:
        left = self._atom()
        while self.peek("*", "/"):
            mark = self.tokens[self.at][1]
            self.at += 1
            left = Call(mark, (left, self._atom()))
        return left

    def _atom(self) -> Any:
        if self.take("-"):
            inner = self._atom()
            if isinstance(inner, Literal) and inner.type == "number":
                return Literal("-" + inner.value, "number")
            return Call("-", (Literal("0", "number"), inner))
        if self.take("("):
            inner = self.expression()
            self.need(")")
            return inner
        if self.at >= len(self.tokens):
            raise self._refuse("expected an expression, got end of input")
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "text":
            return Literal(text[1:-1].replace("''", "'"), "text")
        if kind == "number":
            return Literal(text, "number")
        if kind == "quoted":
            return Column(text)
        if kind == "name" and text.lower() in ("true", "false"):
            return Literal(text.lower() == "true", "checkbox")
        if kind == "name" and text.lower() == "null":
            return Literal(None, "null")
        if kind == "name" and text != ":*":
            if not self.take("("):
                return Column(text.lower())
            if self.take("*"):
                args: list[Any] = []
            elif self.peek(")"):
                args = []
            else:
                args = self.listed(self.expression)
            self.need(")")
            return Call(text.lower(), tuple(args))
        raise self._refuse(f"did not expect {text!r}")

    # clauses
    def selected(self) -> tuple[Any, str]:
        if self.take("*"):
            return Star(), ""
        if self.take(":*"):
            return Star(system=True), ""
        expression = self.expression()
        alias = ""
        if self.take("as"):
            kind, alias = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
            if kind not in ("name", "quoted"):
                raise self._refuse(f"expected a name after AS, got {alias or 'end of input'!r}")
            self.at += 1
        return expression, alias.lower()

    def ordered(self) -> tuple[Any, bool]:
        expression = self.expression()
        descending = self.take("desc")
        if not descending:
            self.take("asc")
        if self.take("null", "nulls"):
            self.take("last", "first")
        return expression, descending

    def whole(self) -> int:
        kind, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "end of input")
        if kind != "number" or not text.isdigit():
            raise self._refuse(f"expected a whole number, got {text!r}")
        self.at += 1
        return int(text)


def parse_parameters(query: Mapping[str, str]) -> Query:
    """The query that `$select`, `$where`, … , `$query` and `field=value` ask for.

    Raises SoqlError (`query.compiler.malformed`, or `bad-parameter` for a parameter that does not exist).
    """
    asked = Query()
    for name, text in query.items():
        if name.startswith("$$") or name == "":
            continue
        if not name.startswith("$"):
            equals = Call("=", (Column(name.lower()), Literal(text, "text")))
            asked.where = equals if asked.where is None else Call("and", (asked.where, equals))
            continue
        clause = name[1:].lower()
        if clause == "query":
            _parse_query(text, asked)
        elif clause in ("select", "where", "group", "having", "order"):
            if text.strip():
                parser = _Parser(text)
                _clause(parser, clause, asked)
                parser.end()
        elif clause in ("limit", "offset"):
            if not text.strip().isdigit():
                raise SoqlError("bad-parameter", f"Unparsable value for parameter ${clause}: {text!r}")
            setattr(asked, clause, int(text))
        elif clause == "q":
            asked.search = text
        else:
            raise SoqlError("bad-parameter", f"Unrecognized arguments [{name}]")
    return asked


def _parse_query(text: str, asked: Query) -> None:
    parser = _Parser(text)
    seen = -1
    while parser.at < len(parser.tokens):
        word = parser._next_text().lower()
        if word not in _CLAUSES or (place := _CLAUSES.index(word)) <= seen and word != "where":
            raise parser._refuse(f"did not expect {word!r}")
        seen = place
        parser.at += 1
        if word in ("group", "order"):
            parser.need("by")
        if word in ("limit", "offset"):
            setattr(asked, word, parser.whole())
        elif word == "search":
            kind, found = parser.tokens[parser.at]
            asked.search = found.strip("'")
            parser.at += 1
        else:
            _clause(parser, word, asked)


def _clause(parser: _Parser, clause: str, asked: Query) -> None:
    match clause:
        case "select":
            asked.select = parser.listed(parser.selected)
        case "where":
            condition = parser.expression()
            asked.where = condition if asked.where is None else Call("and", (asked.where, condition))
        case "group":
            asked.group = parser.listed(parser.expression)
        case "having":
            asked.having = parser.expression()
        case "order":
            asked.order = parser.listed(parser.ordered)


# tree → functions

#: a column's comparable value in a row, and its type
Getter = tuple[Callable[[Any], Any], str]


def number(raw: Any) -> Any:
    """A number's text as a number that compares exactly: a float where that loses nothing."""
    return float(raw) if len(raw) < 16 else Decimal(raw)


def timestamp(text: str, kind: str) -> str:
    """A timestamp literal in the form in which rows hold it: `2020-01-20` → `2020-01-20T00:00:00.000`.

    A floating timestamp with a zone, or text that is no time, raises ValueError: the real portal refuses both.
    """
    when = datetime.fromisoformat(text)
    if kind == "floating_timestamp":
        if when.tzinfo is not None:
            raise ValueError(f"{text!r} has a zone and the column has none")
        return when.isoformat(timespec="milliseconds")
    utc = (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def literal_as(literal: Literal, kind: str) -> Any:
    """A literal's value as it compares with a column of type `kind`. Raises SoqlError type-mismatch."""
    try:
        if literal.type == "null" or literal.type == kind == "checkbox":
            return literal.value
        if kind == "number" and literal.type in ("number", "text"):
            return number(str(Decimal(literal.value)))
        if kind in TIMESTAMPS and literal.type == "text":
            return timestamp(literal.value, kind)
        if kind == "checkbox" and literal.type == "text" and literal.value in ("true", "false"):
            return literal.value == "true"
        if kind not in ("number", "checkbox", *TIMESTAMPS) and literal.type == "text":
            return literal.value
    except (ValueError, InvalidOperation):
        pass  # told below, as every mismatch
    raise SoqlError(
        "query.soql.type-mismatch", f"Type mismatch for comparison, is {literal.type}: {literal.value!r} against {kind}", type=literal.type
    )


class Compiler:
    """Turns expressions into functions of one row. `columns` maps a field name to its getter and type."""

    def __init__(self, columns: Mapping[str, Getter]):
        self.columns = columns

    def column(self, name: str) -> Getter:
        try:
            return self.columns[name]
        except KeyError:
            raise SoqlError("query.soql.no-such-column", f"No such column: {name}", column=name) from None

    def value(self, expression: Any) -> Getter:
        """(function of a row, type). Raises SoqlError for unknown columns and functions and for types that do not meet."""
        if isinstance(expression, Column):
            return self.column(expression.name)
        if isinstance(expression, Literal):
            fixed = literal_as(expression, expression.type) if expression.type == "number" else expression.value
            return (lambda row: fixed), expression.type
        if isinstance(expression, Star):
            raise SoqlError("query.compiler.malformed", "A star stands alone in SELECT")
        return self._call(expression)

    def _call(self, call: Call) -> Getter:
        name, args = call.name, call.args
        if name in ("and", "or"):
            left, right = (self._truth(arg) for arg in args)
            return (_both(left, right) if name == "and" else _either(left, right)), "checkbox"
        if name == "not":
            inner = self._truth(args[0])
            return (lambda row: None if (value := inner(row)) is None else not value), "checkbox"
        if name in ("is null", "is not null"):
            inner, _ = self.value(args[0])
            wanted = name == "is null"
            return (lambda row: (inner(row) is None) is wanted), "checkbox"
        if name in ("=", "!=", "<", "<=", ">", ">="):
            return _compared(name, *self._met(args[0], args[1])), "checkbox"
        if name == "in":
            inner, kind = self.value(args[0])
            if not all(isinstance(arg, Literal) for arg in args[1:]):
                raise SoqlError("query.compiler.malformed", "IN takes literals")
            among = {literal_as(arg, kind) for arg in args[1:]}
            return (lambda row: None if (value := inner(row)) is None else value in among), "checkbox"
        if name == "like":
            inner, pattern = self._text(args[0]), args[1]
            if not isinstance(pattern, Literal) or pattern.type != "text":
                raise SoqlError("query.soql.type-mismatch", "LIKE takes a text pattern")
            shape = re.compile("".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern.value), re.DOTALL)
            return (lambda row: None if (value := inner(row)) is None else shape.fullmatch(value) is not None), "checkbox"
        if name in ("+", "-", "*", "/"):
            return self._arithmetic(name, args)
        if name in _FUNCTIONS:
            arity, make, kind = _FUNCTIONS[name]
            if len(args) != arity:
                raise SoqlError("query.soql.no-such-function", f"No such function: {name}/{len(args)}", function=name)
            return make(*[self.value(arg)[0] for arg in args]), kind
        if name in AGGREGATES:
            raise SoqlError("query.soql.aggregate-in-ungrouped-context", f"Cannot use aggregate function {name} here", function=name)
        raise SoqlError("query.soql.no-such-function", f"No such function: {name}", function=name)

    def _truth(self, expression: Any) -> Callable[[Any], Any]:
        inner, kind = self.value(expression)
        if kind != "checkbox":
            raise SoqlError("query.soql.type-mismatch", f"Type mismatch for op$and, is {kind}", type=kind)
        return inner

    def _text(self, expression: Any) -> Callable[[Any], Any]:
        inner, kind = self.value(expression)
        if kind in ("number", "checkbox", *TIMESTAMPS):
            raise SoqlError("query.soql.type-mismatch", f"Type mismatch for op$like, is {kind}", type=kind)
        return inner

    def _met(self, left: Any, right: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """Both sides of a comparison as functions of one type; a literal takes the type of the other side."""
        if isinstance(left, Literal) and not isinstance(right, Literal):
            right_value, kind = self.value(right)
            fixed = literal_as(left, kind)
            return (lambda row: fixed), right_value
        left_value, kind = self.value(left)
        if isinstance(right, Literal):
            constant = literal_as(right, kind)
            return left_value, (lambda row: constant)
        right_value, other = self.value(right)
        if kind != other:
            raise SoqlError("query.soql.type-mismatch", f"Type mismatch for comparison, is {other} against {kind}", type=other)
        return left_value, right_value

    def _arithmetic(self, mark: str, args: tuple[Any, ...]) -> Getter:
        (left, left_kind), (right, right_kind) = (self.value(arg) for arg in args)
        if left_kind != "number" or right_kind != "number":
            raise SoqlError("query.soql.type-mismatch", f"Type mismatch for op${mark}, is {left_kind} and {right_kind}")

        def of(row: Any) -> Any:
            a, b = left(row), right(row)
            if a is None or b is None or (mark == "/" and not b):
                return None
            a, b = float(a), float(b)
            return a + b if mark == "+" else a - b if mark == "-" else a * b if mark == "*" else a / b

        return of, "number"


def _both(left: Callable[[Any], Any], right: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def of(row: Any) -> Any:
        first = left(row)
        if first is False:
            return False
        second = right(row)
        return second if first else (False if second is False else None)

    return of


def _either(left: Callable[[Any], Any], right: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def of(row: Any) -> Any:
        first = left(row)
        if first is True:
            return True
        second = right(row)
        return second if first is False else (True if second is True else None)

    return of


def _compared(mark: str, left: Callable[[Any], Any], right: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def of(row: Any) -> Any:
        a, b = left(row), right(row)
        if a is None or b is None:
            return None
        match mark:
            case "=":
                return a == b
            case "!=":
                return a != b
            case "<":
                return a < b
            case "<=":
                return a <= b
            case ">":
                return a > b
        return a >= b

    return of


def _mapped(change: Callable[..., Any]) -> Callable[..., Callable[[Any], Any]]:
    """A function over values made a function over rows; null in, null out."""

    def make(*inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def of(row: Any) -> Any:
            values = [one(row) for one in inner]
            return None if None in values else change(*values)

        return of

    return make


_FUNCTIONS: dict[str, tuple[int, Callable[..., Callable[[Any], Any]], str]] = {
    "upper": (1, _mapped(str.upper), "text"),
    "lower": (1, _mapped(str.lower), "text"),
    "length": (1, _mapped(len), "number"),
    "starts_with": (2, _mapped(lambda text, start: text.startswith(start)), "checkbox"),
    "contains": (2, _mapped(lambda text, part: part in text), "checkbox"),
    "date_trunc_ymd": (1, _mapped(lambda when: when[:10] + "T00:00:00.000"), "floating_timestamp"),
    "date_trunc_ym": (1, _mapped(lambda when: when[:7] + "-01T00:00:00.000"), "floating_timestamp"),
    "date_trunc_y": (1, _mapped(lambda when: when[:4] + "-01-01T00:00:00.000"), "floating_timestamp"),
    "date_extract_y": (1, _mapped(lambda when: float(when[:4])), "number"),
    "date_extract_m": (1, _mapped(lambda when: float(when[5:7])), "number"),
    "date_extract_d": (1, _mapped(lambda when: float(when[8:10])), "number"),
    "date_extract_hh": (1, _mapped(lambda when: float(when[11:13])), "number"),
}


def aggregate(call: Call, compiler: Compiler) -> tuple[Callable[[Any], Any], str]:
    """(function of a sized collection of rows, type) for count, max, min, sum, avg. Raises SoqlError for an unknown column."""
    if call.name == "count" and not call.args:
        return len, "number"
    if len(call.args) != 1:
        raise SoqlError("query.soql.no-such-function", f"No such function: {call.name}/{len(call.args)}", function=call.name)
    inner, kind = compiler.value(call.args[0])
    if call.name in ("sum", "avg") and kind != "number":
        raise SoqlError("query.soql.type-mismatch", f"Type mismatch for {call.name}, is {kind}", type=kind)
    present: Callable[[Iterable[Any]], Iterator[Any]] = lambda rows: (v for row in rows if (v := inner(row)) is not None)  # noqa: E731
    match call.name:
        case "count":
            return (lambda rows: sum(1 for _ in present(rows))), "number"
        case "max":
            return (lambda rows: max(present(rows), default=None)), kind
        case "min":
            return (lambda rows: min(present(rows), default=None)), kind
        case "sum":
            return (lambda rows: float(sum(map(float, found))) if (found := list(present(rows))) else None), "number"
    return (lambda rows: sum(map(float, found)) / len(found) if (found := list(present(rows))) else None), "number"


def default_alias(expression: Any) -> str:
    """The name of an unnamed result: `max(updateddate)` → `max_updateddate`, `count(*)` → `count`."""
    if isinstance(expression, Column):
        return expression.name
    if isinstance(expression, Call):
        parts = [expression.name, *(default_alias(arg) for arg in expression.args)]
        return re.sub(r"[^a-z0-9_]+", "_", "_".join(part for part in parts if part)).strip("_") or "expression"
    return re.sub(r"[^a-z0-9_]+", "_", str(expression.value).lower()).strip("_") if isinstance(expression, Literal) else "expression"
