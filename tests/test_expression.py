"""The rule language: what it lets through, in SQL, and what it says of a text it cannot read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Boolean, Column, Float, MetaData, String, Table, create_engine, insert, or_, select

from exports.expression import MAX_DEPTH, MAX_LENGTH, ExpressionError, Field, parse

ROWS = [
    {"id": 1, "drop": 6.0, "area": 0.2, "kind": "background", "rejected": False, "p": 0.9, "wnid": "n1", "name": "a"},
    {"id": 2, "drop": 5.0, "area": 0.4, "kind": "background", "rejected": True, "p": None, "wnid": "n2", "name": "b"},
    {"id": 3, "drop": -1.5, "area": 0.6, "kind": "texture", "rejected": False, "p": 0.1, "wnid": "n3", "name": "it's"},
]
TABLE = Table(
    "rows",
    MetaData(),
    Column("id", Float, primary_key=True),
    *(Column(name, Float) for name in ("drop", "area", "p")),
    *(Column(name, String) for name in ("kind", "wnid", "name")),
    Column("rejected", Boolean),
)
FIELDS = {
    "drop": Field("number", "", lambda: TABLE.c["drop"]),
    "area": Field("number", "", lambda: TABLE.c.area),
    "p": Field("number", "", lambda: TABLE.c.p),
    "kind": Field("text", "", lambda: TABLE.c.kind, values=("background", "texture")),
    "rejected": Field("yes_no", "", lambda: TABLE.c.rejected),
    "class": Field("text", "", lambda: TABLE.c.wnid, lambda v: or_(TABLE.c.wnid == v, TABLE.c.name == v)),
}


@pytest.fixture(scope="module")
def database():
    engine = create_engine("sqlite://")
    TABLE.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(TABLE), ROWS)
    with engine.connect() as connection:
        yield connection


def members(database, text: str) -> list[int]:
    found = database.scalars(select(TABLE.c.id).where(parse(text, FIELDS).condition).order_by(TABLE.c.id))
    return [int(number) for number in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [1, 2, 3]),
        ("drop > 5", [1]),
        ("drop >= 5", [1, 2]),
        ("drop == 5", [2]),
        ("drop = 5", [2]),
        ("drop != 5", [1, 3]),
        ("drop < -1", [3]),
        ("not rejected", [1, 3]),
        ("not not rejected", [2]),
        ("rejected == false", [1, 3]),
        ("rejected != false", [2]),
        ("drop > 5 or drop < 0 and area < 0.5", [1]),
        ("(drop > 5 or drop < 0) and area > .5", [3]),
        ('kind == "texture"', [3]),
        ("kind in ('texture')", [3]),
        ('class in ("n1", "b")', [1, 2]),
        ('class not in ("n1", "b")', [3]),
        ('class == "it\'s"', [3]),
        ('class != "n1"', [2, 3]),
        ("area in (0.2, 0.6)", [1, 3]),
        ("p > 0.5", [1]),
        ("p <= 0.5", [3]),
        ("not p > 0.5", [3]),
        ("p > 0.5 or rejected", [1, 2]),
        ("drop > 5 AND NOT rejected", [1]),
        ("drop>5and area<.5", [1]),
    ],
)
def test_what_an_expression_lets_in(database, text, expected):
    assert members(database, text) == expected


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("dorp > 5", 0, "no field 'dorp'"),
        ("drop", 0, "compare it"),
        ("drop >", 6, "compared with a number"),
        ("drop > '5'", 7, "compared with a number"),
        ("drop > 5 5", 9, "cannot follow"),
        ("drop > 5 and", 12, "ends too early"),
        ("(drop > 5", 9, "expected ')'"),
        ('kind == "tekture"', 8, "one of background, texture"),
        ("kind > 'texture'", 5, "only == and !="),
        ("rejected > true", 9, "only == and !="),
        ("drop > 5; drop", 8, "means nothing"),
        ("drop not 5", 9, "expected `in`"),
        ("class in ()", 10, "a text in quotes"),
        ("drop > 1e999", 7, "too large"),
        ("and drop > 5", 0, "name of a field"),
        ("class == 'open", 9, "means nothing"),
        ("(" * (MAX_DEPTH + 2) + "rejected", None, "nested"),
        (" " * MAX_LENGTH + "x", MAX_LENGTH, "characters"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(text, position, says):
    with pytest.raises(ExpressionError, match=says.replace("(", r"\(").replace(")", r"\)")) as caught:
        parse(text, FIELDS)
    assert position is None or caught.value.position == position


def test_the_fields_used_are_told():
    assert parse("drop > 5 and (not rejected or area < 1)", FIELDS).names == {"drop", "rejected", "area"}


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parse(text, FIELDS)
    except ExpressionError as error:
        assert 0 <= error.position <= MAX_LENGTH


@given(st.text(alphabet="abc'\"; -()%_", max_size=20).filter(lambda t: '"' not in t))
def test_a_quoted_text_is_a_value_and_never_sql(database, text):
    assert members(database, f'class == "{text}"') == [row["id"] for row in ROWS if row["name"] == text]
