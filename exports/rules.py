"""Membership rules: which candidates a build takes in, as a value that can be stored, read and run as SQL.

Several annotators may have a standing verdict on a candidate (table ``current_verdicts``: one row a
candidate and annotator). A skip is no vote. A candidate is *rejected* when at least one annotator
rejects it, whatever the others say, and *accepted* when at least one accepts it and none rejects it;
otherwise it is *undecided*. Where an adjudicator has given a final word, that alone decides, until it is
undone; where nobody has judged, a confirmed band of the triage model may (``auto``). Only the newest version of a
source's candidate counts: one whose mask was corrected and which was made again is ``superseded`` and never a member.
"""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol, get_args

from sqlalchemy import ColumnElement, String, and_, case, literal, not_, null

from db.models import Candidate, Kind, SourceImage, Split, Verdict
from db.queries import is_superseded
from exports.expression import ExpressionError, parse
from exports.fields import FIELDS
from exports.verdicts import has_verdict

Verdicts = Literal["not_rejected", "accepted", "any"]

_VERDICT_WORDS: dict[str, str] = {
    "not_rejected": "that no annotator rejects",
    "accepted": "that at least one annotator accepts and none rejects",
    "any": "whatever the annotators say of them",
}


class RuleError(ValueError):
    """A rule's field outside its range. ``field`` is its name; the message names it too.

    ``position`` is the character (from 0) where an expression could not be read on.
    """

    def __init__(self, field: str, message: str, position: int | None = None) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.position = position


class Cause(enum.StrEnum):
    """Why a candidate is not a member: the first that applies, in this order."""

    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    NOT_ACCEPTED = "not_accepted"
    DROP = "drop"
    AREA = "area"
    RESIDUAL = "residual"
    EXPRESSION = "expression"


class Facts(Protocol):
    """What a rule asks of candidates: SQL columns or NumPy arrays, which compare and negate (``~``) alike.

    ``superseded``, ``said`` and ``holds`` are true or false, never unknown.
    """

    drop: Any
    area: Any
    residual: Any
    superseded: Any

    def said(self, verdict: Verdict, auto: bool) -> Any:
        """Where the verdict stands (:func:`exports.verdicts.has_verdict`)."""
        ...

    def holds(self, expression: str) -> Any:
        """Where the expression is true."""
        ...


class SqlFacts:
    """:class:`Facts` over the tables, for a query of ``Candidate`` joined with ``SourceImage``."""

    def __init__(self) -> None:
        self.drop, self.area, self.residual = Candidate.drop, Candidate.area, Candidate.residual

    @property
    def superseded(self) -> ColumnElement[bool]:
        return is_superseded()

    def said(self, verdict: Verdict, auto: bool) -> ColumnElement[bool]:
        return has_verdict(verdict, auto=auto)

    def holds(self, expression: str) -> ColumnElement[bool]:
        return parse(expression, FIELDS).condition


@dataclass(frozen=True)
class Rule:
    """Which candidates of a recipe are members. Every condition that is set must hold.

    ``verdicts`` is what review must say (see the module's text). ``drop_above`` (strictly above) or
    ``drop_at_least``, not both, bound the drop in the scorer's logits. ``area_min`` and ``area_max``,
    both inclusive, bound the object mask's share of the image, 0 to 1 (before dilation).
    ``residual_max``, inclusive, bounds the residual on the scorer's own scale. ``None`` sets no bound.
    ``expression`` is a condition more in the language of :mod:`exports.expression` over :data:`exports.fields.FIELDS`.
    ``auto`` lets the verdicts of confirmed triage bands count where no person has judged.
    Raises :class:`RuleError` for a value outside its range.
    """

    verdicts: Verdicts = "not_rejected"
    drop_above: float | None = None
    drop_at_least: float | None = None
    area_min: float | None = None
    area_max: float | None = None
    residual_max: float | None = None
    kind: Kind = Kind.BACKGROUND
    split: Split = Split.VAL
    expression: str = ""
    auto: bool = True

    def __post_init__(self) -> None:
        if self.verdicts not in get_args(Verdicts):
            raise RuleError("verdicts", f"must be one of {', '.join(get_args(Verdicts))}, not {self.verdicts!r}.")
        for name in ("drop_above", "drop_at_least", "area_min", "area_max", "residual_max"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in ("area_min", "area_max"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RuleError(name, f"must be a share of the image from 0 to 1, not {value:g}.")
        if self.area_min is not None and self.area_max is not None and self.area_min > self.area_max:
            raise RuleError("area_min", f"must not exceed area_max, but {self.area_min:g} > {self.area_max:g}.")
        if self.drop_above is not None and self.drop_at_least is not None:
            raise RuleError("drop_at_least", "cannot be set together with drop_above; leave one of them empty.")
        for name, values in (("kind", Kind), ("split", Split)):
            try:
                object.__setattr__(self, name, values(getattr(self, name)))
            except ValueError:
                known = ", ".join(values)
                raise RuleError(name, f"must be one of {known}, not {getattr(self, name)!r}.") from None

        try:
            object.__setattr__(self, "expression", parse(self.expression, FIELDS).text)
        except ExpressionError as error:
            raise RuleError("expression", str(error), error.position) from None
        if not isinstance(self.auto, bool):
            raise RuleError("auto", f"must be true or false, not {self.auto!r}.")

    @classmethod
    def from_json(cls, values: dict) -> Rule:
        """From :meth:`to_json`'s object. A missing key means its default; an unknown one is refused."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise RuleError(str(name), f"is not a field of a rule; the fields are {', '.join(known)}.")
        return cls(**values)

    def to_json(self) -> dict[str, str | float | bool | None]:
        """Every field by name, ready for JSON; equal rules give equal objects."""
        return {name: str(value) if isinstance(value, str) else value for name, value in asdict(self).items()}

    def describe(self) -> str:
        """The rule as one English sentence."""
        bounds = []
        if self.drop_above is not None:
            bounds.append(f"a drop above {self.drop_above:g}")
        if self.drop_at_least is not None:
            bounds.append(f"a drop of at least {self.drop_at_least:g}")
        if self.area_min is not None and self.area_max is not None:
            bounds.append(f"an object area from {self.area_min:g} to {self.area_max:g} of the image")
        elif self.area_min is not None:
            bounds.append(f"an object area of at least {self.area_min:g} of the image")
        elif self.area_max is not None:
            bounds.append(f"an object area of at most {self.area_max:g} of the image")
        if self.residual_max is not None:
            bounds.append(f"a residual of at most {self.residual_max:g}")
        if self.expression:
            bounds.append(f"`{self.expression}`")
        ending = f", with {' and '.join(bounds)}" if bounds else ""
        return f"Every {self.kind} candidate of the {self.split} sources {_VERDICT_WORDS[self.verdicts]}{ending}."

    def fields_used(self) -> frozenset[str]:
        """The names of the fields in the expression."""
        return parse(self.expression, FIELDS).names

    def population(self, recipe_id: int) -> ColumnElement[bool]:
        """The candidates the rule is about, members or not. The query must join ``SourceImage``."""
        return and_(Candidate.recipe_id == recipe_id, Candidate.kind == self.kind, SourceImage.split == self.split)

    def where(self, recipe_id: int) -> ColumnElement[bool]:
        """True for members, over ``Candidate`` joined with ``SourceImage``."""
        return and_(self.population(recipe_id), *(not_(fails) for _, fails in self.failures(SqlFacts())))

    def cause(self) -> ColumnElement[str | None]:
        """The :class:`Cause` a candidate of the population is left out for; NULL for a member."""
        whens = [(fails, literal(str(cause), String)) for cause, fails in self.failures(SqlFacts())]
        return case(*whens, else_=null())

    def failures(self, facts: Facts) -> list[tuple[Cause, Any]]:
        """What keeps a candidate out, in the order in which it is named; as SQL or arrays, whichever the facts are."""
        failures: list[tuple[Cause, Any]] = [(Cause.SUPERSEDED, facts.superseded)]
        if self.verdicts != "any":
            failures.append((Cause.REJECTED, facts.said(Verdict.REJECT, self.auto)))
        if self.verdicts == "accepted":
            failures.append((Cause.NOT_ACCEPTED, ~facts.said(Verdict.ACCEPT, self.auto)))
        if self.drop_above is not None:
            failures.append((Cause.DROP, facts.drop <= self.drop_above))
        if self.drop_at_least is not None:
            failures.append((Cause.DROP, facts.drop < self.drop_at_least))
        if self.area_min is not None:
            failures.append((Cause.AREA, facts.area < self.area_min))
        if self.area_max is not None:
            failures.append((Cause.AREA, facts.area > self.area_max))
        if self.residual_max is not None:
            failures.append((Cause.RESIDUAL, facts.residual > self.residual_max))
        if self.expression:
            failures.append((Cause.EXPRESSION, ~facts.holds(self.expression)))
        return failures


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RuleError(name, f"must be a finite number or empty, not {value!r}.")
    return float(value) + 0.0


PRESETS: dict[str, Rule] = {"bg": Rule(), "bg_s": Rule(drop_above=5.0)}
"""The published sets by build name: Bg is every candidate not rejected, Bg(S) those with a drop above 5."""
