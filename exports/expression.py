"""A small language for membership: ``drop > 5 and not rejected and class not in ("tench", "n01443537")``.

    expression = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation = [ "not" ] ( "(" expression ")" | comparison | yes-or-no field )
    comparison = field ( "<" | "<=" | ">" | ">=" | "==" | "!=" ) value
               | field [ "not" ] "in" "(" value { "," value } ")"
    value = a number, a text in quotes, true or false

Every field has a type, checked when the text is read; what was read becomes one SQL condition. A comparison
with a value that is not known (no model's P(accept), say) is neither true nor false, as in SQL, and an
expression that comes out so leaves the candidate out.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, and_, func, not_, or_, true

MAX_LENGTH = 2000
MAX_DEPTH = 40

Type = Literal["number", "text", "yes_no"]
Value = float | str | bool

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<text>\"[^\"\n]*\"|'[^'\n]*')|(?P<sign><=|>=|==|!=|<|>|=|\(|\)|,))"
)
_COMPARE: dict[str, Callable] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
}
_KIND_WORDS = {"number": "a number", "text": "a text in quotes", "yes_no": "true or false"}


class ExpressionError(ValueError):
    """An expression that cannot be read. ``position`` is the character (from 0) where reading stopped."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class Field:
    """A name that expressions may use: its type, what it means, and the SQL it stands for.

    ``equals`` replaces ``==`` where one name stands for several columns (a class's wnid, name or index).
    ``values`` are the only texts it can have, if they are few.
    """

    type: Type
    meaning: str
    column: Callable[[], ColumnElement]
    equals: Callable[[Value], ColumnElement[bool]] | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expression:
    """A text that was read: the condition it stands for (never NULL) and the names of the fields in it."""

    text: str
    condition: ColumnElement[bool]
    names: frozenset[str]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse(text: str, fields: Mapping[str, Field]) -> Expression:
    """Read ``text``; an empty one lets everything in. Raises :class:`ExpressionError` saying what is wrong where."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"An expression may have {MAX_LENGTH} characters, not {len(text)}.", MAX_LENGTH)
    if not text.strip():
        return Expression("", true(), frozenset())
    reader = _Reader(text, fields)
    condition = reader.expression(0)
    reader.end()
    return Expression(" ".join(text.split()), func.coalesce(condition, False), frozenset(reader.used))


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    end = len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            place = position + len(text[position:]) - len(text[position:].lstrip())
            raise ExpressionError(f"{_place(place)}: {text[place]!r} means nothing here.", place)
        yield _Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup))
        position = found.end()
    yield _Token("end", "", end)


def _place(position: int) -> str:
    return f"Character {position + 1}"


class _Reader:
    """Recursive descent over the tokens, building SQL as it goes."""

    def __init__(self, text: str, fields: Mapping[str, Field]) -> None:
        self._tokens = list(_tokens(text))
        self._fields = fields
        self._next = 0
        self.used: set[str] = set()

    def expression(self, depth: int) -> ColumnElement[bool]:
        if depth > MAX_DEPTH:
            self._fail(f"parentheses are nested more than {MAX_DEPTH} deep.")
        parts = [self._conjunction(depth)]
        while self._take_word("or"):
            parts.append(self._conjunction(depth))
        return or_(*parts) if len(parts) > 1 else parts[0]

    def end(self) -> None:
        if self._token.kind != "end":
            self._fail(f"{self._token.text!r} cannot follow; join conditions with `and` or `or`.")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _fail(self, problem: str, token: _Token | None = None) -> None:
        position = (token or self._token).position
        raise ExpressionError(f"{_place(position)}: {problem}", position)

    def _take_word(self, word: str) -> bool:
        found = self._token.kind == "word" and self._token.text.lower() == word
        self._next += found
        return found

    def _take_sign(self, *signs: str) -> str | None:
        if self._token.kind == "sign" and self._token.text in signs:
            self._next += 1
            return self._tokens[self._next - 1].text
        return None

    def _expect(self, sign: str) -> None:
        if not self._take_sign(sign):
            self._fail(f"expected {sign!r}.")

    def _conjunction(self, depth: int) -> ColumnElement[bool]:
        parts = [self._negation(depth)]
        while self._take_word("and"):
            parts.append(self._negation(depth))
        return and_(*parts) if len(parts) > 1 else parts[0]

    def _negation(self, depth: int) -> ColumnElement[bool]:
        negated = False
        while self._take_word("not"):
            negated = not negated
        if self._take_sign("("):
            inner = self.expression(depth + 1)
            self._expect(")")
        else:
            inner = self._condition()
        return not_(inner) if negated else inner

    def _condition(self) -> ColumnElement[bool]:
        token = self._token
        name = token.text
        if token.kind != "word" or name.lower() in ("and", "or", "in", "true", "false"):
            self._fail("expected the name of a field." if token.kind != "end" else "the expression ends too early.")
        field = self._fields.get(name)
        if field is None:
            self._fail(f"there is no field {name!r}; there are {', '.join(sorted(self._fields))}.")
        self._next += 1
        self.used.add(name)
        if self._take_word("not"):
            if not self._take_word("in"):
                self._fail("expected `in` after `not`.")
            return not_(self._among(name, field))
        if self._take_word("in"):
            return self._among(name, field)
        if sign := self._take_sign(*_COMPARE):
            return self._compared(name, field, sign)
        if field.type == "yes_no":
            return field.column()
        self._fail(f"{name} is {_KIND_WORDS[field.type]}; compare it, as in `{name} {_example(field)}`.", token)
        raise AssertionError

    def _compared(self, name: str, field: Field, sign: str) -> ColumnElement[bool]:
        if field.type != "number" and sign not in ("==", "=", "!="):
            self._fail(f"{name} is {_KIND_WORDS[field.type]}: only == and != make sense.", self._tokens[self._next - 1])
        value = self._value(name, field)
        if sign == "!=":
            return not_(_equal(field, value))
        return _equal(field, value) if sign in ("==", "=") else _COMPARE[sign](field.column(), value)

    def _among(self, name: str, field: Field) -> ColumnElement[bool]:
        self._expect("(")
        values = [self._value(name, field)]
        while self._take_sign(","):
            values.append(self._value(name, field))
        self._expect(")")
        return or_(*(_equal(field, value) for value in values))

    def _value(self, name: str, field: Field) -> Value:
        token = self._token
        self._next += token.kind != "end"
        if token.kind == "number" and field.type == "number":
            value = float(token.text)
            if not math.isfinite(value):
                self._fail("the number is too large.", token)
            return value
        if token.kind == "text" and field.type == "text":
            text = token.text[1:-1]
            if field.values and text not in field.values:
                self._fail(f"{name} is one of {', '.join(field.values)}, not {text!r}.", token)
            return text
        if token.kind == "word" and token.text.lower() in ("true", "false") and field.type == "yes_no":
            return token.text.lower() == "true"
        self._fail(f"{name} is compared with {_KIND_WORDS[field.type]}.", token)
        raise AssertionError


def _equal(field: Field, value: Value) -> ColumnElement[bool]:
    if field.equals is not None:
        return field.equals(value)
    if isinstance(value, bool):
        return field.column() if value else not_(field.column())
    return field.column() == value


def _example(field: Field) -> str:
    return "> 5" if field.type == "number" else f'== "{field.values[0] if field.values else "..."}"'
