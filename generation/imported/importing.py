"""An archive's images as candidates of a recipe of their own, all of them or none.

Files are written first, each folder whole or not at all and found again by a later run; the rows come last, in one
transaction. So an import that was stopped is gone on with, one that fails leaves no candidate, and one that is run
twice adds nothing. What the archive records of an image (scores, areas, verdict counts, its recipe) stays with the
candidate as recorded, in ``details["imported"]``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Candidate, Outcome, Recipe, State
from db.progress import NoProgress, Progress
from db.queries import ACTIVE_RECIPE, IMPORTED, set_meta
from db.workspace import Workspace
from generation.artifacts import remove_stale_parts
from generation.decode import UnreadableImage
from generation.imported.files import BadImage, Incoming, add_masks, prepare, write
from generation.imported.matching import IncomingArchive, IncomingImage, Matches, Unmatched, match_sources
from generation.protocols import Scorer, ScoreRequest
from generation.recipe import RECIPE_FORMAT, canonical_hash
from generation.sources import SourceChanged

MAX_NAMED = 20
READERS = 4
SCORE_BATCH = 16
_NEVER_ARCHIVED = ("logit_source", "logit_candidate", "top5", "boxes")
_AREAS = ("area", "dilated_area")


class ImportRefused(RuntimeError):
    """The archive cannot be taken in; the message names what is wrong and what to do. No candidate was added."""


@dataclass(frozen=True)
class CandidateImport:
    """What became of every image: ``added + already_there + repeated + len(unmatched) == found``.

    ``repeated`` are second copies of an image inside the archive. ``masks`` counts the candidates that got masks now,
    those that were there before included; ``scored`` those that had to be scored because the archive had no scores.
    """

    recipe_hash: str
    found: int
    added: int
    already_there: int
    repeated: int
    masks: int
    scored: int
    unmatched: tuple[Unmatched, ...]


def import_candidates(
    workspace: Workspace,
    archive: IncomingArchive,
    load_scorer: Callable[[], Scorer],
    *,
    activate: bool = True,
    progress: Progress | None = None,
) -> CandidateImport:
    """Add the archive's images whose photos the workspace has; name the others.

    ``load_scorer`` is called when the archive records no scores: those images are scored here, and the recipe says by
    what. With ``activate`` the pages show the imported recipe from then on. Raises :class:`ImportRefused` when an
    image or mask is bad or no image has its photo here, and :class:`db.progress.Cancelled`.
    """
    progress = progress or NoProgress()
    remove_stale_parts(workspace.root)
    progress.update(0, len(archive.images), "looking for the photos")
    matches, repeated = _without_repeats(archive, match_sources(workspace, archive.images))
    scorer = load_scorer() if any(not image.recorded for image, _ in matches.pairs) else None
    config = _config(archive, scorer)
    recipe_hash = canonical_hash(config)
    known = _known(workspace, recipe_hash)
    new = [(image, source) for image, source in matches.pairs if _lineage(image, source.id) not in known]
    masked = _give_masks(workspace, archive, matches, known)
    ready, left_out = _bring_in(workspace, archive, recipe_hash, new, scorer, progress)
    unmatched = (*matches.unmatched, *left_out)
    if not ready and not known:
        first = unmatched[0]
        raise ImportRefused(
            f"None of the {len(archive.images)} images has its photo in this workspace (of {first.file}: "
            f"{first.reason}) Import the photos first: `launch.py import FOLDER`."
        )
    progress.update(len(archive.images), len(archive.images), "recording the candidates")
    _record(workspace, config, recipe_hash, archive.label, ready, activate)
    return CandidateImport(
        recipe_hash,
        found=len(archive.images),
        added=len(ready),
        already_there=len(matches.pairs) - len(new),
        repeated=repeated,
        masks=masked + sum("areas" in item.facts for item in ready),
        scored=sum("score" in item.facts for item in ready),
        unmatched=unmatched,
    )


def _config(archive: IncomingArchive, scorer: Scorer | None) -> dict:
    """The recipe's config: the archive's own recipe as it states it, under a hash that nothing made here can have."""
    stated = archive.recipe
    backends = dict(stated.get("backends") or {})
    if scorer is not None:
        backends["scorer"] = scorer.fingerprint()
    return {
        "format": RECIPE_FORMAT,
        "kind": IMPORTED,
        "archive": {"identity": archive.identity, "recipe_hash": archive.recipe_hash},
        "options": dict(stated.get("options") or {}),
        "backends": backends,
    }


def _without_repeats(archive: IncomingArchive, matches: Matches) -> tuple[Matches, int]:
    """One image a lineage: a second copy counts as repeated, another image in its place is left out with a reason."""
    first: dict[tuple, IncomingImage] = {}
    kept = Matches(unmatched=list(matches.unmatched))
    repeated = 0
    for image, source in matches.pairs:
        other = first.setdefault(_lineage(image, source.id), image)
        if other is image:
            kept.pairs.append((image, source))
        elif archive.read(image) == archive.read(other):
            repeated += 1
        else:
            kept.unmatched.append(Unmatched(image.file, f"{other.file} is another image of the same photo."))
    return kept, repeated


def _lineage(image: IncomingImage, source_id: int) -> tuple:
    return source_id, str(image.kind), image.variant, image.version


def _known(workspace: Workspace, recipe_hash: str) -> dict[tuple, Candidate]:
    """The candidates that an earlier import recorded, by lineage."""
    with workspace.read() as session:
        query = select(Candidate).join(Recipe, Recipe.id == Candidate.recipe_id).where(Recipe.hash == recipe_hash)
        return {(row.source_id, str(row.kind), row.variant, row.version): row for row in session.scalars(query)}


def _bring_in(
    workspace: Workspace,
    archive: IncomingArchive,
    recipe_hash: str,
    pairs: list[tuple],
    scorer: Scorer | None,
    progress: Progress,
) -> tuple[list[Incoming], list[Unmatched]]:
    """Prepare, score and write every image; all bad ones are found before it is refused."""
    ready: list[Incoming] = []
    left_out: list[Unmatched] = []
    bad: list[str] = []

    def prepared() -> Iterator[Incoming]:
        for image, future in _ahead(workspace, archive, recipe_hash, pairs):
            progress.update(len(ready) + len(left_out) + len(bad), len(pairs), image.file)
            try:
                yield future.result()
            except BadImage as error:
                bad.append(str(error))
            except (SourceChanged, UnreadableImage) as error:
                left_out.append(Unmatched(image.file, str(error)))

    with ThreadPoolExecutor(READERS, thread_name_prefix="write") as pool:
        coming = prepared()
        while batch := list(islice(coming, SCORE_BATCH)):
            if scorer is not None:
                _score([item for item in batch if "score" not in item.facts], scorer)
            list(pool.map(lambda item: write(workspace, item), batch))
            ready += batch
    if bad:
        more = f" ... and {len(bad) - MAX_NAMED} more." if len(bad) > MAX_NAMED else ""
        raise ImportRefused(
            f"{len(bad)} of {len(pairs)} images are bad, so nothing was imported: {' '.join(bad[:MAX_NAMED])}{more}"
        )
    return ready, left_out


def _ahead(
    workspace: Workspace, archive: IncomingArchive, recipe_hash: str, pairs: list[tuple]
) -> Iterator[tuple[IncomingImage, Future[Incoming]]]:
    """Images with what becomes of them, in order, a few in work at once; the archive itself is read by one thread."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="prepare") as pool:
        waiting: deque[tuple[IncomingImage, Future[Incoming]]] = deque()
        try:
            for image, source in pairs:
                content, masks = archive.read(image), archive.masks(image)
                waiting.append((image, pool.submit(prepare, workspace, recipe_hash, image, source, content, masks)))
                if len(waiting) >= 2 * READERS:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(cancel_futures=True)


def _score(items: list[Incoming], scorer: Scorer) -> None:
    fresh = [item for item in items if item.raw is not None]
    if fresh:
        requests = [ScoreRequest(item.raw, item.result, item.source.class_index) for item in fresh]
        for item, score in zip(fresh, scorer.score(requests), strict=True):
            item.score = score


def _give_masks(workspace: Workspace, archive: IncomingArchive, matches: Matches, known: dict) -> int:
    """Masks for candidates that were imported before without them; areas that were not recorded come from them."""
    given = 0
    for image, source in matches.pairs:
        candidate = known.get(_lineage(image, source.id))
        masks = archive.masks(image) if candidate is not None else None
        if masks is None or candidate.details["imported"]["masked"]:
            continue
        try:
            areas = add_masks(workspace, candidate.folder, image, masks)
        except BadImage as error:
            raise ImportRefused(str(error)) from error
        with workspace.write() as session:
            row = session.get_one(Candidate, candidate.id)
            facts = row.details["imported"]
            if not facts["recorded"]:
                row.area, row.dilated_area = areas["area"], areas["dilated_area"]
            unknown = [name for name in facts["unknown"] if name not in _AREAS]
            row.details = {**row.details, "imported": {**facts, "masked": True, "unknown": unknown}}
        given += 1
    return given


def _record(
    workspace: Workspace, config: dict, recipe_hash: str, label: str, ready: list[Incoming], activate: bool
) -> None:
    """Every row in one transaction: there is no moment at which a part of the import is to be seen."""
    with workspace.write() as session:
        recipe = session.scalar(select(Recipe).where(Recipe.hash == recipe_hash))
        if recipe is None:
            recipe = Recipe(hash=recipe_hash, config=config)
            session.add(recipe)
            session.flush()
        newest: dict[int, Candidate] = {}
        for item in ready:
            candidate = _row(item, recipe.id, label)
            session.add(candidate)
            if candidate.version >= getattr(newest.get(item.source.id), "version", 0):
                newest[item.source.id] = candidate
        session.flush()
        _set_outcomes(session, recipe.id, newest)
        if activate:
            set_meta(session, ACTIVE_RECIPE, str(recipe.id))


def _set_outcomes(session: Session, recipe_id: int, newest: dict[int, Candidate]) -> None:
    for source_id, candidate in newest.items():
        session.merge(
            Outcome(source_id=source_id, recipe_id=recipe_id, state=State.CANDIDATE, candidate_id=candidate.id)
        )


def _row(item: Incoming, recipe_id: int, label: str) -> Candidate:
    """The candidate's row. What was never recorded is named in ``details["imported"]["unknown"]`` and stands at 0."""
    recorded, score, areas = item.image.recorded, item.facts.get("score"), item.facts.get("areas", {})
    if score is None:
        # The archive keeps the drop alone, not the two logits; they are set so that they still give it.
        score = {"logit_source": float(recorded["drop"]), "logit_candidate": 0.0, "top5": []}
        score |= {"residual": float(recorded["residual"]), "probability": float(recorded["probability"])}
        score["rank"] = int(recorded["rank"])
        unknown = list(_NEVER_ARCHIVED)
    else:
        unknown = ["boxes", *(name for name in _AREAS if name not in areas)]
    area, dilated_area = (float(recorded[name]) if recorded else areas.get(name, 0.0) for name in _AREAS)
    imported = {**item.facts["imported"], "archive": label, "masked": "areas" in item.facts, "unknown": unknown}
    return Candidate(
        source_id=item.source.id,
        recipe_id=recipe_id,
        kind=item.image.kind,
        variant=item.image.variant,
        version=item.image.version,
        class_index=item.source.class_index,
        folder=item.folder,
        result_sha256=item.result_sha256,
        width=item.facts["width"],
        height=item.facts["height"],
        logit_source=score["logit_source"],
        logit_candidate=score["logit_candidate"],
        drop=score["logit_source"] - score["logit_candidate"],
        residual=score["residual"],
        rank=score["rank"],
        probability=score["probability"],
        top5=list(score["top5"]),
        area=area,
        dilated_area=dilated_area,
        phash=item.facts["phash"],
        boxes=[],
        timings={},
        notes={"imported": f"from the archive {label}"},
        details={"imported": imported},
    )
