"""The names a membership expression may use, each with its type, its meaning and its SQL over ``Candidate``."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Integer, case, cast, func, or_, select
from sqlalchemy.orm import aliased

from db.models import (
    Candidate,
    DuplicateMember,
    GoldItem,
    ImageClass,
    Kind,
    Meta,
    Recipe,
    SourceImage,
    Split,
    TriagePrediction,
    Verdict,
)
from exports.expression import Field, Value
from exports.verdicts import decided_by, final_word, has_verdict, verdict_count

KAPPA_FIELD = "kappa"
CLASS_KAPPA = "class_kappa"
"""The meta key of each class's Fleiss' kappa as JSON, ``{"3": 0.61}``: agreement is review's to compute."""


def _of_class(value: Value) -> ColumnElement[bool]:
    matches = [ImageClass.wnid == value, ImageClass.name == value]
    if str(value).isdigit():
        matches.append(ImageClass.class_index == int(value))
    return Candidate.class_index.in_(select(ImageClass.class_index).where(or_(*matches)))


def _of_recipe(value: Value) -> ColumnElement[bool]:
    return Candidate.recipe_id.in_(select(Recipe.id).where(Recipe.hash.startswith(str(value), autoescape=True)))


def _agreement() -> ColumnElement[float | None]:
    accepts, rejects = verdict_count(Verdict.ACCEPT), verdict_count(Verdict.REJECT)
    larger = case((accepts > rejects, accepts), else_=rejects)
    return larger * 1.0 / func.nullif(accepts + rejects, 0)


def _class_kappa() -> ColumnElement[float | None]:
    path = func.printf('$."%d"', Candidate.class_index)
    return select(func.json_extract(Meta.value, path)).where(Meta.key == CLASS_KAPPA).scalar_subquery()


def _p_accept() -> ColumnElement[float | None]:
    query = select(TriagePrediction.p_accept).where(TriagePrediction.candidate_id == Candidate.id)
    return query.scalar_subquery()


def _duplicates() -> ColumnElement[int]:
    own, other = aliased(DuplicateMember), aliased(DuplicateMember)
    query = select(func.count()).select_from(other).join(own, own.group_id == other.group_id)
    others = query.where(own.candidate_id == Candidate.id, other.candidate_id != Candidate.id)
    return cast(others.scalar_subquery(), Integer)


FIELDS: dict[str, Field] = {
    "drop": Field("number", "logit of the class on the photo minus on the candidate", lambda: Candidate.drop),
    "residual": Field("number", "evidence of the class left, on the scorer's scale", lambda: Candidate.residual),
    "rank": Field("number", "the class's place among all on the candidate, 1 = best guess", lambda: Candidate.rank),
    "probability": Field("number", "its softmax probability, 0 to 1", lambda: Candidate.probability),
    "area": Field("number", "share of the image the object's mask covers, 0 to 1", lambda: Candidate.area),
    "dilated_area": Field("number", "share of the image inpainted, 0 to 1", lambda: Candidate.dilated_area),
    "version": Field("number", "1, or higher after mask corrections", lambda: Candidate.version),
    "accepts": Field("number", "annotators who accept it", lambda: verdict_count(Verdict.ACCEPT)),
    "rejects": Field("number", "annotators who reject it", lambda: verdict_count(Verdict.REJECT)),
    "skips": Field("number", "annotators who skipped it", lambda: verdict_count(Verdict.SKIP)),
    "agreement": Field("number", "share of its annotators who say what most say, 0.5 to 1", _agreement),
    KAPPA_FIELD: Field("number", "Fleiss' kappa of its class, where overlap gives one", _class_kappa),
    "p_accept": Field("number", "the triage model's probability of an accept, 0 to 1", _p_accept),
    "duplicates": Field("number", "how many near-duplicates it has in the set", _duplicates),
    "accepted": Field("yes_no", "an accept stands", lambda: has_verdict(Verdict.ACCEPT)),
    "rejected": Field("yes_no", "a reject stands", lambda: has_verdict(Verdict.REJECT)),
    "adjudicated": Field("yes_no", "an adjudicator has decided", lambda: final_word().is_not(None)),
    "gold": Field(
        "yes_no",
        "a gold item, whose right verdict was known",
        lambda: Candidate.id.in_(select(GoldItem.candidate_id)),
    ),
    "decided_by": Field("text", "whose verdict stands", decided_by, values=("adjudicator", "human", "auto", "nobody")),
    "class": Field("text", "the removed class: its wnid, name or index", lambda: Candidate.class_index, _of_class),
    "kind": Field("text", "what the candidate is", lambda: Candidate.kind, values=tuple(Kind)),
    "split": Field("text", "where its photo comes from", lambda: SourceImage.split, values=tuple(Split)),
    "recipe": Field("text", "its recipe, by the first digits of the hash", lambda: Candidate.recipe_id, _of_recipe),
    "source": Field("text", "its photo's name", lambda: SourceImage.name),
}
