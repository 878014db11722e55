"""The data card: README.md of every archive, made from the frozen build and its recipe alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from db.models import Build, Recipe
from db.queries import is_imported
from exports.builds import build_label
from exports.members import METADATA_COLUMNS
from exports.rules import Rule

COLUMN_MEANINGS: dict[str, str] = {
    "file_name": "path of the image, relative to metadata.csv",
    "key": "its path below the images folder: the same in every archive with this coding",
    "wnid": "WordNet id of the source photo's label: the class that was removed",
    "class_index": "index of that class in the workspace's class list, from 0",
    "class_name": "its name, as used in prompts",
    "source_name": "name of the source photo",
    "source_sha256": "sha256 of the source photo's file",
    "result_sha256": "sha256 of this image's file",
    "kind": "what the candidate is: background (object removed), texture or id_aug",
    "version": "1, or higher when the mask was corrected and the image made again",
    "drop": "true class's logit on the source photo minus on this image, on the scorer's scale",
    "residual": "evidence of the class left in this image, on the scorer's own scale",
    "rank": "place of the class among all classes on this image; 1 = still the best guess",
    "probability": "softmax probability of the class on this image, 0 to 1",
    "area": "share of the image that the object's mask covers, 0 to 1",
    "dilated_area": "share of the image that was inpainted, 0 to 1",
    "phash": "64-bit perceptual hash of this image, in hex",
    "accepts": "annotators who accepted it, at the freeze",
    "rejects": "annotators who rejected it, at the freeze",
    "decided_by": "whose verdict stands behind it: human, adjudicator, auto (a confirmed model band) or nobody",
    "part": "val or test, by the source photo alone: choose thresholds on val, report on test",
    "recipe_hash": "sha256 of the recipe that made it",
}

_LOADING = """```python
from torchvision.datasets import ImageFolder
data = ImageFolder("<extracted>/images")
```

`ImageFolder` numbers only the classes that are present, in order of wnid; take `class_index` from
`metadata.csv` for the index in the full class list. As an out-of-distribution set the images have no
label: the class named by the folder is the one that is *not* there any more. Check the files with
`sha256sum -c SHA256SUMS` in the extracted folder."""

LICENCE = """The images are made from ImageNet photos. Those photos keep the terms under which they were obtained
(ImageNet's terms of access and the rights of each photo's owner); the tool that made this archive gives
no licence to them and cannot. Whoever passes this archive on must see to it that they may."""


_LIMITS = """- The photos are those of ImageNet val where the split is val: never train or choose thresholds on them and
  test on them too. `part` splits the set into val and test by photo.
- Each image shares its photo with an ImageNet val image, so compare scores in pairs, and do not count the two as
  independent.
- Inpainting leaves traces that a detector may learn instead of the missing object. PNG beside JPEG photos is such a
  trace too: the JPEG coding of this tool's archives is there to control for it.
- Another object of the 1,000 classes may be in the background; annotators reject it when they see it.
- The drop is measured with a CLIP-like model: detectors built on the same model may look better than they are."""


def data_card(build: Build, recipe: Recipe, *, images: str = "PNG", part: str = "", audit: dict | None = None) -> str:
    """The card as Markdown, in the order of a datasheet. The same build and audit give the same text."""
    summary = build.summary
    sections = [
        f"# ImageNet background set `{build_label(build)}`",
        *([f"This archive holds its **{part}** part."] if part else []),
        f"{build.item_count} images made from labelled ImageNet photos by masking the labelled object and "
        "inpainting it away: what is left is the background. Made to test how far out-of-distribution "
        "detectors are misled by backgrounds.",
        *([f"Note: {summary['note']}"] if summary.get("note") else []),
        *_grade_notes(recipe),
        _purity(audit),
        "## Membership",
        Rule.from_json(build.rule).describe(),
        "A candidate is rejected when at least one annotator rejects it; accepted when at least one accepts "
        "it and none rejects it; undecided otherwise. Only the newest version of a candidate counts. "
        f"Frozen at {build.created_at.isoformat(timespec='seconds')}; content hash `{build.content_hash}` "
        "(sha256 over the members, see `build.json`).",
        markdown_table(("left out for", "candidates"), summary["excluded"].items()),
        "## Counts at the freeze",
        f"Every one of the {summary['sources']} source photos is in exactly one state:",
        markdown_table(("state", "sources"), [*summary["states"].items(), ("total", summary["sources"])]),
        markdown_table(("verdict", "candidates"), _verdict_rows(summary["verdicts"])),
        markdown_table(("whose verdict stands behind a member", "members"), summary.get("decided_by", {}).items()),
        markdown_table(("part, by source photo", "members"), summary.get("parts", {}).items()),
        markdown_table(
            ("reason of a reject (one reject may give several)", "count"), summary["reject_reasons"].items()
        ),
        markdown_table(
            ("annotator", "accepts", "rejects", "skips"),
            [(row["annotator"], row["accepts"], row["rejects"], row["skips"]) for row in summary["annotators"]],
        ),
        _classes(summary["classes"]),
        *_agreement(summary.get("review")),
        *_audit(audit),
        "## How the images were made",
        f"Recipe `{recipe.hash}`; `build.json` holds all of it.",
        *_imported(recipe),
        markdown_table(("stage", "backend", "grade"), _backend_rows(recipe)),
        markdown_table(("option", "value"), sorted(recipe.config.get("options", {}).items())),
        "## Files",
        f"Images are {images}: `images/<wnid>/<source>`, `metadata.csv` (one line an image), `build.json` (rule, "
        "recipe, counts), `SHA256SUMS`. Columns of `metadata.csv`:",
        markdown_table(("column", "meaning"), [(name, COLUMN_MEANINGS[name]) for name in METADATA_COLUMNS]),
        "## Loading",
        _LOADING,
        "## Known limits and leaks",
        _LIMITS,
        "## Licence",
        LICENCE,
        "## Citing",
        f"Cite the set by its name and content hash, `{build_label(build)}` `{build.content_hash}`, and ImageNet as "
        "its source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115 (2015). "
        "Recipes with published models follow OSPCoOp (CVPR 2025).",
    ]
    return "\n\n".join(sections) + "\n"


def _purity(audit: dict | None) -> str:
    if audit is None:
        return (
            "**Not audited:** no random sample of the members was judged to estimate how many still show the "
            "object. The counts below are what annotators said, not a measured purity."
        )
    return f"**Audited:** {audit['statement']}."


def _agreement(review: dict | None) -> list[str]:
    """Kappa overall, by reason and by pair, and the gold items, as they stood at the freeze."""
    if review is None:
        return []
    agreement = review["agreement"]
    header = ("agreement", "images", "observed", "kappa", "95 % interval")
    rows = [("overall (Fleiss)", *_kappa(agreement["overall"]))]
    rows += [(f"reason {name}", *_kappa(value)) for name, value in agreement["reasons"].items()]
    rows += [(f"{pair['a']} and {pair['b']} (Cohen)", *_kappa(pair)) for pair in agreement["pairs"]]
    gold = [
        (row["annotator"], row["judged"], row["correct"], _interval(row["accuracy"], row["low"], row["high"]))
        for row in review["gold"]
    ]
    return [
        "## Agreement of the annotators",
        f"Among images judged by {agreement['ratings_per_item']} annotators ({agreement['sample']}); kappa is "
        "corrected for chance, intervals are by bootstrap over images.",
        markdown_table(header, [row for row in rows if row[1]]),
        markdown_table(("gold items: annotator", "judged", "right", "accuracy"), gold),
    ]


def _kappa(value: dict) -> tuple[object, ...]:
    observed = "" if value["observed"] is None else f"{value['observed']:.3f}"
    kappa = "" if value["kappa"] is None else f"{value['kappa']:.3f}"
    interval = "" if value["low"] is None else f"{value['low']:.3f} to {value['high']:.3f}"
    return value["items"], observed, kappa, interval


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return "" if value is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _audit(audit: dict | None) -> list[str]:
    if audit is None:
        return []
    drawn, judged = audit["drawn_at"][:10], (audit["last_judged_at"] or "")[:10]
    return [
        "## Audit",
        f"{audit['judged']} of {audit['population']} members, drawn at random by {audit['strata_by']} (seed "
        f"{audit['seed']}) on {drawn}, judged blind until {judged}. Object left in {audit['object_left']} of them: "
        f"{audit['share']:.2%} of the set, two-sided {audit['confidence']:.0%} interval {audit['lower']:.2%} to "
        f"{audit['upper']:.2%}, one-sided bound {audit['one_sided_upper']:.2%} (method: {audit['method']}). Auditors "
        f"differed on {audit['disputed']}.",
        markdown_table(("auditor", "judged"), audit["auditors"]),
        markdown_table(("stratum", "members", "judged", "object left"), audit["strata"]),
        markdown_table(("what was left", "count"), audit["reasons"].items()),
    ]


def _grade_notes(recipe: Recipe) -> list[str]:
    by_grade: dict[str, list[str]] = {}
    for stage, name, grade in _backend_rows(recipe):
        by_grade.setdefault(grade, []).append(f"{stage} {name}")
    notes = []
    if "embedded" in by_grade:
        notes.append(
            f"**Embedded result: not paper-grade.** Made with stand-ins for the published models "
            f"({', '.join(by_grade['embedded'])}). Drop and residual are on these models' own scales, so the "
            "published thresholds do not mean the same here; do not compare numbers with published ones."
        )
    if "test" in by_grade:
        notes.append(f"**Test result: not a data set.** Made with test backends ({', '.join(by_grade['test'])}).")
    if "not recorded" in by_grade:
        notes.append(
            f"**Grade not recorded** for {', '.join(by_grade['not recorded'])}: do not take it as paper-grade."
        )
    return notes


def _imported(recipe: Recipe) -> list[str]:
    """Said of images that came in an archive: the verdicts are this workspace's, the rest is as recorded there."""
    if not is_imported(recipe):
        return []
    stated = recipe.config["archive"]["recipe_hash"]
    by = f"made by the recipe `{stated}`, whose backends and options follow" if stated else "which states no recipe"
    return [f"The images were imported from an archive, {by}. Verdicts and counts are those of a new review."]


def _backend_rows(recipe: Recipe) -> list[tuple[str, str, str]]:
    return [
        (stage, str(backend.get("name", "unnamed")), str(backend.get("grade", "not recorded")))
        for stage, backend in sorted(recipe.config.get("backends", {}).items())
    ]


def _verdict_rows(verdicts: dict[str, int]) -> list[tuple[str, int]]:
    return [
        ("accepted", verdicts["accepted"]),
        ("rejected", verdicts["rejected"]),
        ("undecided (no verdict, or only skips)", verdicts["undecided"]),
        ("of the rejected: annotators disagreed", verdicts["disagreed"]),
    ]


def _classes(classes: dict) -> str:
    return (
        f"{classes['with_members']} of {classes['total']} classes have members; a class has "
        f"{classes['smallest']} to {classes['largest']} of them, {classes['median']:g} at the median."
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; one line saying so when there are no rows."""
    lines = [" | ".join(_cell(value) for value in row) for row in rows]
    if not lines:
        return f"{header[0].capitalize()}: none."
    return "\n".join([" | ".join(header), " | ".join("---" for _ in header), *lines])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
