"""The queue's filter and order as request parameters; a saved view holds the same, checked the same way."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.plain_route import MAX_ID
from db.models import Kind, Verdict
from db.queries import active_recipe
from db.workspace import Workspace
from review.filters import QueueFilter, QueueState
from review.orders import Order
from review.random_order import MAX_SEED


class FilterQuery(BaseModel):
    """Which candidates; docs/review.md says what each parameter means."""

    model_config = ConfigDict(extra="ignore")
    state: QueueState = QueueState.UNREVIEWED
    class_index: int | None = Field(None, ge=0, le=MAX_ID)
    drop_min: float | None = Field(None, allow_inf_nan=False)
    drop_max: float | None = Field(None, allow_inf_nan=False)
    area_min: float | None = Field(None, allow_inf_nan=False)
    area_max: float | None = Field(None, allow_inf_nan=False)
    residual_min: float | None = Field(None, allow_inf_nan=False)
    residual_max: float | None = Field(None, allow_inf_nan=False)
    p_accept_min: float | None = Field(None, allow_inf_nan=False)
    p_accept_max: float | None = Field(None, allow_inf_nan=False)
    kind: Kind | None = None
    recipe: int | None = Field(None, ge=1, le=MAX_ID)
    verdict: Verdict | None = None
    annotator: int | None = Field(None, ge=1, le=MAX_ID)
    disagreement: bool = False
    duplicates: bool = False

    def queue_filter(self, workspace: Workspace) -> QueueFilter:
        """The filter; without a recipe the active one is meant."""
        values = {name: getattr(self, name) for name in FilterQuery.model_fields}
        recipe, annotator = values.pop("recipe"), values.pop("annotator")
        return QueueFilter(recipe_id=recipe_or_active(workspace, recipe), annotator_id=annotator, **values)


class ViewQuery(FilterQuery):
    """Which candidates in which order. ``seed`` is that of the random order."""

    order: Order = Order.ID
    seed: int = Field(0, ge=0, le=MAX_SEED)


class SavedQuery(ViewQuery):
    """What a saved view may hold: nothing but that."""

    model_config = ConfigDict(extra="forbid")

    def stored(self) -> dict:
        """What differs from the defaults, ready for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)


def recipe_or_active(workspace: Workspace, recipe_id: int | None) -> int | None:
    """The recipe asked for, else the active one, else None."""
    if recipe_id is not None:
        return recipe_id
    with workspace.read() as session:
        recipe = active_recipe(session)
        return None if recipe is None else recipe.id
