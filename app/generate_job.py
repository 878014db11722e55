"""What a "generate" job is given and what it tells afterwards, for the command and the page alike."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from generation.recipe import RecipeOptions


def generate_params(
    options: RecipeOptions,
    limit: int | None = None,
    classes: list[int] | None = None,
    redo_failed: bool = False,
    *,
    only_missing: bool = False,
    split: str | None = None,
    fewshot_set: int | None = None,
    low_memory: bool = False,
    batch: int | Literal["auto"] = "auto",
    compiled: bool = False,
) -> dict:
    """The job's params. See :class:`generation.selection.Selection` and :class:`generation.passes.RunSettings`."""
    return {
        "options": asdict(options),
        "limit": limit,
        "classes": classes,
        "redo_failed": redo_failed,
        "only_missing": only_missing,
        "split": split,
        "fewshot_set": fewshot_set,
        "low_memory": low_memory,
        "batch": batch,
        "compile": compiled,
    }


def run_facts(result: dict) -> list[tuple[str, str]]:
    """What a finished job says of its run, as names and values for people; jobs of older versions say less."""
    from generation.run_progress import GIB, duration_text, rate_text

    facts = [("Photos", f"{result['made']:,}")]
    if result.get("seconds"):
        facts.append(("Time", duration_text(result["seconds"])))
    if result.get("images_per_s"):
        facts.append(("Rate", rate_text(result["images_per_s"])))
    if result.get("passes"):
        facts.append(("Passes", "; ".join(result["passes"])))
    card = result.get("gpu")
    if card:
        facts.append(
            ("GPU memory", f"at most {card['peak'] / GIB:.1f} of {card['total'] / GIB:.0f} GiB, {card['name']}")
        )
    tuning = result.get("tuning") or {}
    if tuning:
        facts.append(("Images at once", ", ".join(f"{part} {found['batch']}" for part, found in tuning.items())))
    busy = {name: seconds for name, seconds in result["busy_seconds"].items() if seconds >= 1}
    if busy:
        facts.append(("Work by stage", ", ".join(f"{name} {duration_text(seconds)}" for name, seconds in busy.items())))
    return facts
