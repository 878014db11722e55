"""Build: choose a rule, see at once what it takes in, then freeze it."""

from __future__ import annotations

import gradio as gr
from sqlalchemy import select

from app.pages.histogram import drop_histogram
from app.pages.shared import (
    ACTION,
    PROJECT_ERRORS,
    FormError,
    Page,
    action,
    asker,
    candidate_image,
    empty,
    escape,
    heading,
    markup,
    notice,
    optional_number,
    optional_number_box,
    section,
    table,
)
from db.models import Candidate
from db.queries import active_recipe, class_names
from db.workspace import Workspace
from exports.builds import BuildPreview, build_label, freeze, list_builds, preview
from exports.rules import PRESETS, Cause, Rule
from review.audit_report import audit_statement, build_audit

CUSTOM = "custom"
PRESET_CHOICES = [
    ("Bg: every candidate that nobody rejects", "bg"),
    ("Bg(S): those with a drop above 5", "bg_s"),
    ("Custom", CUSTOM),
]
VERDICT_CHOICES = [
    ("Nobody rejects it", "not_rejected"),
    ("Somebody accepts it, nobody rejects it", "accepted"),
    ("Whatever was said", "any"),
]
BOUND_CHOICES = [("above (>)", "above"), ("at least (≥)", "at_least")]
CAUSE_TEXT = {
    Cause.SUPERSEDED: "superseded by a newer version",
    Cause.REJECTED: "rejected in review",
    Cause.NOT_ACCEPTED: "not accepted yet",
    Cause.DROP: "drop too low",
    Cause.AREA: "object area out of bounds",
    Cause.RESIDUAL: "residual too high",
}
SAMPLE = 24
DROP, AREA_MIN, AREA_MAX, RESIDUAL = "Drop", "Smallest area", "Largest area", "Largest residual"


def build_page(workspace: Workspace) -> Page:
    """Add the page to the open tab."""
    heading("Build", "A build is a frozen, numbered, hashed list of candidates. The rule decides who is in it.")
    preset = gr.Radio(PRESET_CHOICES, value="bg", label="Start from", elem_id="build-preset")
    with gr.Row():
        verdicts = gr.Dropdown(
            VERDICT_CHOICES, value="not_rejected", label="Review", filterable=False, elem_id="build-verdicts"
        )
        bound = gr.Dropdown(BOUND_CHOICES, value="above", label="Drop bound", filterable=False, min_width=120)
        drop = optional_number_box(DROP, min_width=110, elem_id="build-drop")
        area_min = optional_number_box(AREA_MIN, min_width=110)
        area_max = optional_number_box(AREA_MAX, min_width=110)
        residual = optional_number_box(RESIDUAL, min_width=110)
    members = markup("build-members")
    section("Freeze")
    with gr.Row(elem_classes="filters"):
        name = gr.Textbox("bg", label="Name", info="Lower-case letters, digits and _", elem_id="build-name")
        button = gr.Button("Freeze this build", variant="primary", elem_id="build-freeze", elem_classes="short")
    message = markup("build-message")
    builds = markup("build-list")
    fields = [verdicts, bound, drop, area_min, area_max, residual]

    def choose(preset: str, *values: object) -> tuple[object, ...]:
        values = values if preset == CUSTOM else _values(PRESETS[preset])
        return *values, preset, render_members(workspace, *values)

    def edit(*values: object) -> tuple[str, str]:
        return CUSTOM, render_members(workspace, *values)

    @action
    def freeze_build(name: str, *values: object) -> str:
        frozen = freeze(workspace, name.strip(), _rule(*values), created_by=asker())
        label = build_label(frozen.build)
        if not frozen.is_new:
            return f"{label} holds exactly this already; nothing new was frozen."
        return f"Frozen as {label} with {frozen.build.item_count:,} images. It can be exported now."

    def refresh(*values: object) -> tuple[str, str]:
        return render_members(workspace, *values), render_builds(workspace)

    preset.input(choose, [preset, *fields], [*fields, name, members], **ACTION)
    for component in fields:
        component.input(edit, fields, [preset, members], trigger_mode="always_last", **ACTION)
    frozen = button.click(freeze_build, [name, *fields], message, **ACTION)
    frozen.then(lambda: render_builds(workspace), None, builds, **ACTION)
    return Page(refresh, [members, builds], inputs=fields)


def _values(rule: Rule) -> tuple[object, ...]:
    """A rule as the form's values, in its order."""
    if rule.drop_at_least is not None:
        bound, drop = "at_least", rule.drop_at_least
    else:
        bound, drop = "above", rule.drop_above
    numbers = (drop, rule.area_min, rule.area_max, rule.residual_max)
    return rule.verdicts, bound, *("" if number is None else f"{number:g}" for number in numbers)


def _rule(
    verdicts: str,
    bound: str,
    drop: str,
    area_min: str,
    area_max: str,
    residual: str,
) -> Rule:
    if verdicts is None or bound is None:
        raise FormError("Choose what review must say and how the drop is bounded.")
    threshold = optional_number(drop, DROP)
    return Rule(
        verdicts=verdicts,
        drop_above=threshold if bound == "above" else None,
        drop_at_least=threshold if bound == "at_least" else None,
        area_min=optional_number(area_min, AREA_MIN),
        area_max=optional_number(area_max, AREA_MAX),
        residual_max=optional_number(residual, RESIDUAL),
    )


def render_members(workspace: Workspace, *values: object) -> str:
    """What the form's rule takes in now: counts, histogram and a sample, as HTML."""
    try:
        rule = _rule(*values)
    except PROJECT_ERRORS as error:
        return notice(str(error), tone="bad")
    with workspace.read() as session:
        recipe = active_recipe(session)
        seen = None if recipe is None else preview(session, recipe, rule, sample_size=SAMPLE)
        if seen is None or not seen.candidates:
            return empty(
                "No candidates yet",
                "A build is chosen from candidates; make some first.",
                "generate",
                "Go to Generate",
            )
        names = class_names(session)
        sample = list(session.scalars(select(Candidate).where(Candidate.id.in_(seen.sample)).order_by(Candidate.id)))
    threshold = rule.drop_above if rule.drop_above is not None else rule.drop_at_least
    return (
        f'<p class="rule">{escape(rule.describe())}</p>'
        f'<div class="columns build"><div>{_counts(seen)}</div>'
        f"<div>{drop_histogram(seen.histogram, threshold)}</div></div>"
        f"{_sample(sample, names, seen.members)}"
    )


def _counts(seen: BuildPreview) -> str:
    rows = [("In the build", f"<strong>{seen.members:,}</strong>")]
    rows += [
        (f"Left out: {escape(CAUSE_TEXT[cause])}", f"{count:,}") for cause, count in seen.excluded.items() if count
    ]
    with_members = seen.classes.classes - len(seen.classes.empty)
    spread = (
        f"{with_members:,} of {seen.classes.classes:,} classes have members; {seen.classes.smallest:,} to "
        f"{seen.classes.largest:,} a class, median {seen.classes.median:g}."
    )
    counts = table(
        "Candidates under the rule",
        ("Candidates", "Count"),
        rows,
        numeric=(1,),
        footer=("All candidates", f"{seen.candidates:,}"),
    )
    return f'{counts}<p class="aside">{spread}</p>'


def _sample(sample: list[Candidate], names: dict[int, str], members: int) -> str:
    if not sample:
        return empty("The rule takes in nothing", "Loosen a bound, or judge more candidates.", "review", "Go to Review")
    items = "".join(_member(candidate, names[candidate.class_index]) for candidate in sample)
    return (
        f'<h4 class="sample-title">A sample of {len(sample)} of the {members:,} members</h4>'
        f'<ul class="grid small" aria-label="Sample of members">{items}</ul>'
    )


def _member(candidate: Candidate, class_name: str) -> str:
    picture = candidate_image(candidate, f"Background made from a photo of {class_name}")
    drop = f'<span class="aside">drop {candidate.drop:.2f}</span>'
    return f"<li>{picture}<strong>{escape(class_name)}</strong>{drop}</li>"


def render_builds(workspace: Workspace) -> str:
    """The frozen builds, newest first, as HTML."""
    with workspace.read() as session:
        builds = sorted(list_builds(session), key=lambda build: build.id, reverse=True)
        purity = {build.id: audit_statement(build_audit(session, build)) for build in builds}
    if not builds:
        return empty("No build yet", "Choose a rule above and freeze it; it gets a number and a hash.")
    return table(
        "Frozen builds, newest first",
        ("Build", "Images", "Audit", "Rule", "Content hash", "Frozen"),
        [
            (
                f"<strong>{escape(build_label(build))}</strong>",
                f"{build.item_count:,}",
                f'<a class="long" href="#audit">{escape(purity[build.id])}</a>',
                escape(Rule.from_json(build.rule).describe()),
                f'<code title="{escape(build.content_hash)}">{escape(build.content_hash[:16])}</code>',
                f"{build.created_at:%Y-%m-%d %H:%M} UTC",
            )
            for build in builds
        ],
        numeric=(1,),
    )
