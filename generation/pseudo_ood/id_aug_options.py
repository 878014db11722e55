"""What is asked of an ID augmentation, with the published values as defaults, and what it says it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

from db.training_guard import NOISE_OPTION
from db.training_queries import MIN_DROP
from generation.id_aug import MIN_OBJECT_AREA, MIN_SIMILARITY
from generation.recipe import RecipeError

BACKGROUND_OPTION, TEXTURE_OPTION = 1, 2
OPTION_NAMES = {BACKGROUND_OPTION: "background", TEXTURE_OPTION: "texture", NOISE_OPTION: "noise"}


class OptionPlan(NamedTuple):
    """One of the options, how often it is gone through, and for what share of the images each time."""

    option: int
    rate: float = 0.5
    times: int = 1


class Pass(NamedTuple):
    """One going through of the images with one option. ``variant`` numbers the passes from 0."""

    option: int
    repeat: int
    variant: int
    rate: float


PUBLISHED_PLANS = (OptionPlan(BACKGROUND_OPTION), OptionPlan(TEXTURE_OPTION), OptionPlan(NOISE_OPTION))


@dataclass(frozen=True)
class IdAugOptions:
    """What decides the id_augs. Option 1 sets the object on another class's background candidate, 2 on another
    class's texture candidate, 3 on noise.

    A composite is kept when the cosine of its and the photo's global features is ``min_similarity`` or more;
    each image gets ``tries`` of them a pass. Objects below ``min_object_area`` (a share of the image) are not
    augmented. Backgrounds need a drop above ``min_drop``, or an accept.
    """

    seed: int = 1
    plans: tuple[OptionPlan, ...] = PUBLISHED_PLANS
    tries: int = 5
    min_similarity: float = MIN_SIMILARITY
    min_object_area: float = MIN_OBJECT_AREA
    min_drop: float = MIN_DROP

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RecipeError(f"seed must be 0 or more, not {self.seed}.")
        if self.tries < 1:
            raise RecipeError(f"tries must be at least 1, not {self.tries}.")
        if not -1 <= self.min_similarity <= 1:
            raise RecipeError(f"min_similarity is a cosine, -1 to 1, not {self.min_similarity}.")
        if not 0 <= self.min_object_area <= 1:
            raise RecipeError(f"min_object_area is a share, 0 to 1, not {self.min_object_area}.")
        options = [plan.option for plan in self.plans]
        if not options or len(set(options)) < len(options) or not set(options) <= set(OPTION_NAMES):
            raise RecipeError(f"options must be different ones of 1, 2, 3, not {options}.")
        for plan in self.plans:
            if not 0 <= plan.rate <= 1:
                raise RecipeError(f"The rate of option {plan.option} is a share, 0 to 1, not {plan.rate}.")
            if plan.times < 1:
                raise RecipeError(f"Option {plan.option} must be gone through at least once, not {plan.times} times.")

    @classmethod
    def from_dict(cls, values: dict) -> IdAugOptions:
        """From JSON as :meth:`to_json` writes it."""
        return cls(**{**values, "plans": tuple(OptionPlan(**plan) for plan in values["plans"])})

    def to_json(self) -> dict:
        return {**asdict(self), "plans": [plan._asdict() for plan in self.plans]}

    def passes(self) -> list[Pass]:
        every = [(plan, repeat) for plan in self.plans for repeat in range(plan.times)]
        return [Pass(plan.option, repeat, variant, plan.rate) for variant, (plan, repeat) in enumerate(every)]


@dataclass(frozen=True)
class PassResult:
    """``made`` of the ``target`` id_augs of a pass are there; ``tries`` composites were looked at in this run."""

    option: int
    repeat: int
    target: int
    made: int
    tries: int


@dataclass(frozen=True)
class IdAugResult:
    """``made`` id_augs are of this run. ``images`` could be augmented, of which ``too_small`` are by their area not.

    ``failed`` were drawn and got none, because of a fault or because no try came near enough.
    """

    recipe_hash: str
    made: int
    images: int
    too_small: int
    failed: int
    passes: tuple[PassResult, ...]
