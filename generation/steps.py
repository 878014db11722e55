"""What happens to one image on its way from source to candidate: decode, mask, inpaint, score, write.

Each step changes a batch of :class:`Work` in place; :func:`generation.work.guarded` keeps those that have ended
out of it, and ends as ``failed`` the ones that raise.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from sqlalchemy import select

from db.models import Candidate, Recipe, State
from db.workspace import Workspace
from generation.artifacts import (
    MaskCache,
    candidate_folder,
    decode_png,
    encode_png,
    encode_thumbnail,
    pixels_sha256,
    read_manifest,
    write_folder,
)
from generation.backends import Backends, BackendsInTurn
from generation.decode import resize_working
from generation.masking.postprocess import area_share, binarise, clean_mask, composite, dilate, perceptual_hash
from generation.protocols import Box, MaskProposal, ResidualDetector, Score, ScoreRequest, SecondLook
from generation.recipe import RecipeOptions, canonical_hash
from generation.sources import open_source
from generation.work import Work, guarded

__all__ = ["Steps", "Work", "guarded"]


class Steps:
    """The steps under one recipe, sharing the loaded backends and the workspace's caches.

    Each step finds on disk what it or a step before it left there, so that a run can stop between any two of them.
    """

    def __init__(self, workspace: Workspace, options: RecipeOptions, backends: Backends | BackendsInTurn) -> None:
        self._workspace = workspace
        self._options = options
        self._backends = backends
        self._fingerprints = backends.fingerprints()
        self._looks_again = options.second_look and backends.looks_again
        self._mask_cache = MaskCache(workspace.root)

    def decode(self, items: list[Work]) -> None:
        for item in items:
            item.raw = resize_working(open_source(item.source), self._options.resolution)
            item.raw_sha256 = pixels_sha256(item.raw)

    def mask(self, items: list[Work]) -> None:
        """Propose (or find in the cache), clean, judge the size, dilate, and name the candidate."""
        keys = [self._mask_key(item) for item in items]
        proposals = [self._mask_cache.load(key) for key in keys]
        missing = [i for i, proposal in enumerate(proposals) if proposal is None]
        if missing:
            made = self._backends.masker.propose([items[i].request for i in missing])
            for i, proposal in zip(missing, made, strict=True):
                self._mask_cache.store(keys[i], proposal)
                proposals[i] = proposal
        for item, proposal in zip(items, proposals, strict=True):
            self._accept_proposal(item, proposal)

    def _accept_proposal(self, item: Work, proposal: MaskProposal) -> None:
        options = self._options
        item.boxes = proposal.boxes
        if not proposal.mask.any():
            item.mask = proposal.mask
            item.end(State.NO_DETECTION, "The masker found no object of the class.")
            return
        self._take(
            item,
            clean_mask(
                proposal.mask,
                min_component=options.min_component,
                keep_components=options.max_components,
                fill_holes=options.max_hole,
            ),
        )

    def take_mask(self, item: Work, mask: np.ndarray) -> None:
        """Use a mask that a person drew (``HxW uint8``, above 50 = object) as it is, within the recipe's limits."""
        self._take(item, binarise(mask))

    def _take(self, item: Work, mask: np.ndarray) -> None:
        """Judge the mask's size, dilate it, and name the candidate."""
        options = self._options
        item.mask = mask
        area = area_share(item.mask)
        item.dilated = dilate(item.mask, options.dilation, options.dilation_shape)
        dilated_area = area_share(item.dilated)
        if area < options.min_area:
            item.end(State.MASK_TOO_SMALL, f"The mask covers {area:.2%}, less than {options.min_area:.2%}.")
        elif area > options.max_area:
            item.end(State.MASK_TOO_LARGE, f"The mask covers {area:.2%}, more than {options.max_area:.2%}.")
        elif dilated_area > options.max_dilated_area:
            limit = f"{options.max_dilated_area:.2%}"
            item.end(State.MASK_TOO_LARGE, f"The dilated mask covers {dilated_area:.2%}, more than {limit}.")
        else:
            item.key = self._candidate_key(item)

    def inpaint(self, items: list[Work]) -> None:
        """Fill the dilated masks, look a second time where the recipe asks for it; reuse what is on disk."""
        todo = [item for item in items if not self._found_on_disk(item)]
        if not todo:
            return
        filled = self._backends.inpainter.inpaint([i.raw for i in todo], [i.dilated for i in todo])
        for item, answer in zip(todo, filled, strict=True):
            item.result = composite(item.raw, answer.image, item.dilated)
            item.notes |= answer.notes
            if self._looks_again:
                self._look_again(item, self._backends.masker)

    def _look_again(self, item: Work, masker: SecondLook) -> None:
        larger = masker.second_look(item.request, item.mask, item.result)
        if larger is None:
            return
        dilated = dilate(larger, self._options.dilation, self._options.dilation_shape)
        if area_share(dilated) >= self._options.max_dilated_area:
            item.notes["second_look"] = "too large"
            return
        answer = self._backends.inpainter.inpaint([item.raw], [dilated])[0]
        second = composite(item.raw, answer.image, dilated)
        # A fallback's smears lower the class's evidence too, without the picture being better for it.
        if "fallback" in answer.notes:
            item.notes["second_look"] = "refused: the inpainter fell back"
        elif masker.second_look_helped(item.request, item.result, second):
            item.mask, item.dilated, item.result = larger, dilated, second
            item.notes = {**answer.notes, "second_look": "kept"}
        else:
            item.notes["second_look"] = "did not help"

    def score(self, items: list[Work]) -> None:
        """Score source against candidate; a folder already scored by the same scorer keeps its score."""
        fresh = []
        for item in items:
            item.phash = perceptual_hash(item.result)
            if item.manifest is not None:
                self._take_known_score(item)
            if item.score is None:
                fresh.append(item)
        if fresh:
            requests = [ScoreRequest(i.raw, i.result, i.source.class_index) for i in fresh]
            for item, score in zip(fresh, self._backends.scorer.score(requests), strict=True):
                item.score = score
        detector = self._backends.residual_detector
        if detector is not None:
            self._detect_again([item for item in items if item.residual_boxes is None], detector)

    @staticmethod
    def _detect_again(items: list[Work], detector: ResidualDetector) -> None:
        left = detector.residual_boxes([item.request for item in items], [item.result for item in items])
        for item, boxes in zip(items, left, strict=True):
            item.residual_boxes = boxes

    def keep(self, items: list[Work]) -> None:
        """Put the images into the candidate's folder, where a later pass finds them."""
        for item in items:
            if item.manifest is None:
                files = {
                    "raw.png": encode_png(item.raw),
                    "mask.png": encode_png(item.mask),
                    "dilated.png": encode_png(item.dilated),
                    "result.png": encode_png(item.result),
                    "thumbnail.jpg": encode_thumbnail(item.result),
                }
                folder = self._workspace.path(candidate_folder(item.key))
                item.manifest = write_folder(folder, files, self._facts(item))

    def write(self, items: list[Work]) -> None:
        """Put the images into the candidate's folder, which ends the work."""
        self.keep(items)
        for item in items:
            item.end(State.CANDIDATE)

    def candidate_row(self, item: Work, recipe_id: int) -> Candidate:
        """The database row of a written candidate. Call before :meth:`Work.forget_pixels`."""
        height, width = item.raw.shape[:2]
        return Candidate(
            source_id=item.source.id,
            recipe_id=recipe_id,
            kind="background",
            class_index=item.source.class_index,
            folder=candidate_folder(item.key),
            result_sha256=item.manifest["files"]["result.png"],
            width=width,
            height=height,
            logit_source=item.score.logit_source,
            logit_candidate=item.score.logit_candidate,
            drop=item.score.drop,
            residual=item.score.residual,
            rank=item.score.rank,
            probability=item.score.probability,
            top5=list(item.score.top5),
            residual_boxes=None if item.residual_boxes is None else [asdict(box) for box in item.residual_boxes],
            area=area_share(item.mask),
            dilated_area=area_share(item.dilated),
            phash=item.phash,
            boxes=[asdict(box) for box in item.boxes],
            timings=item.timings,
            notes=item.notes,
        )

    def _facts(self, item: Work) -> dict:
        return {
            "source": item.source.name,
            "source_sha256": item.source.sha256,
            "class_index": item.source.class_index,
            "boxes": [asdict(box) for box in item.boxes],
            "notes": item.notes,
            "inpainter": self._fingerprints["inpainter"],
        }

    def _mask_key(self, item: Work) -> str:
        request = {"raw": item.raw_sha256, "class_index": item.source.class_index, "class_name": item.class_name}
        return canonical_hash({"masker": self._fingerprints["masker"], **request})

    def _candidate_key(self, item: Work) -> str:
        parts = {
            "source_sha256": item.source.sha256,
            "class_index": item.source.class_index,
            "raw": item.raw_sha256,
            "mask": pixels_sha256(item.mask),
            "dilated": pixels_sha256(item.dilated),
            "inpainter": self._fingerprints["inpainter"],
        }
        if self._looks_again:
            second = [self._options.dilation, self._options.dilation_shape, self._options.max_dilated_area]
            parts["second_look"] = [self._fingerprints["masker"], *second]
        return canonical_hash(parts)

    def _found_on_disk(self, item: Work) -> bool:
        folder = self._workspace.path(candidate_folder(item.key))
        manifest = read_manifest(folder)
        if manifest is None:
            return False
        item.manifest = manifest
        item.notes |= manifest["notes"]
        item.mask = decode_png((folder / "mask.png").read_bytes())
        item.dilated = decode_png((folder / "dilated.png").read_bytes())
        item.result = decode_png((folder / "result.png").read_bytes())
        return True

    def _take_known_score(self, item: Work) -> None:
        """What the same scorer and masker found on the same pixels before, if they did."""
        made = select(Candidate, Recipe).join(Recipe).where(Candidate.folder == candidate_folder(item.key))
        with self._workspace.read() as session:
            for candidate, recipe in session.execute(made):
                backends = recipe.config["backends"]
                if backends["scorer"] == self._fingerprints["scorer"]:
                    item.score = Score(
                        candidate.logit_source,
                        candidate.logit_candidate,
                        candidate.residual,
                        candidate.rank,
                        candidate.probability,
                        tuple(candidate.top5),
                    )
                if backends["masker"] == self._fingerprints["masker"] and candidate.residual_boxes is not None:
                    item.residual_boxes = tuple(Box(**box) for box in candidate.residual_boxes)
