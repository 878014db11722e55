"""The embedded masker: where EfficientNet-Lite0 sees the class, snapped to the image by GrabCut.

An activation map (several scales, averaged) is spread along similar pixels (affinity propagation: deep
features, colour and place on a coarse grid) and then cut out with GrabCut at 224x224. No text, no boxes
from a detector: it knows the 1000 ImageNet classes and nothing else. Measured: docs/embedded.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from generation.masking.postprocess import clean_mask
from generation.protocols import Box, MaskProposal, MaskRequest
from ospcoop.clip.efficientnet import FeatureMaps, file_sha256, load_efficientnet_lite0, to_input, weights_path

SIDE = 224


class EmbeddedCamMasker:
    """A :class:`~generation.protocols.Masker` and :class:`~generation.protocols.SecondLook` on the CPU.

    Images are squashed to 224x224, masks resized back to the request's size. Maps are in [0, 1].
    Thread-safe, keeps nothing of an image, and treats each image alone: a batch equals its images.

    ``cam_scales``: input sizes whose activation maps are averaged; the largest also feeds the affinity.
    ``affinity_grid``, ``affinity_bandwidth``, ``affinity_steps``: side of the grid, kernel width as a share
    of the mean squared distance, number of propagations.
    ``certain_background`` < ``keep_above`` < ``probable_foreground`` < ``certain_foreground``: map levels that
    seed GrabCut (``grabcut_iterations``); its answer is kept only where the map exceeds ``keep_above``.
    ``min_component``, ``fill_holes``: see :func:`~generation.masking.postprocess.clean_mask`.
    ``second_look_*``: the class probability on the inpainted image that calls for a second look, the map
    level (floor, or percentile if that is higher) above which it adds pixels, and by how much the class
    logit must fall for it to count. ValueError for levels out of order.
    """

    def __init__(
        self,
        *,
        cam_scales: Sequence[int] = (224, 320, 448),
        affinity_grid: int = 56,
        affinity_bandwidth: float = 0.1,
        affinity_steps: int = 3,
        certain_background: float = 0.10,
        keep_above: float = 0.20,
        probable_foreground: float = 0.30,
        certain_foreground: float = 0.60,
        grabcut_iterations: int = 3,
        min_component: float = 0.002,
        fill_holes: float = 0.01,
        second_look_probability: float = 0.02,
        second_look_floor: float = 0.6,
        second_look_percentile: float = 90.0,
        second_look_gain: float = 0.5,
    ) -> None:
        if not 0 <= certain_background <= keep_above <= probable_foreground <= certain_foreground <= 1:
            raise ValueError("Map levels must rise: certain_background, keep_above, probable_, certain_foreground.")
        if not cam_scales:
            raise ValueError("cam_scales must name at least one input size.")
        self._cam_scales = tuple(sorted(cam_scales))
        self._affinity_grid = affinity_grid
        self._affinity_bandwidth = affinity_bandwidth
        self._affinity_steps = affinity_steps
        self._certain_background = certain_background
        self._keep_above = keep_above
        self._probable_foreground = probable_foreground
        self._certain_foreground = certain_foreground
        self._grabcut_iterations = grabcut_iterations
        self._min_component = min_component
        self._fill_holes = fill_holes
        self._second_look_probability = second_look_probability
        self._second_look_floor = second_look_floor
        self._second_look_percentile = second_look_percentile
        self._second_look_gain = second_look_gain
        self._network = load_efficientnet_lite0()

    def fingerprint(self) -> dict[str, object]:
        parameters = {name.lstrip("_"): value for name, value in vars(self).items() if name != "_network"}
        parameters["cam_scales"] = list(self._cam_scales)
        return {
            "name": "embedded_cam",
            "grade": "embedded",
            **parameters,
            "side": SIDE,
            "opencv": cv2.__version__,
            "weights_sha256": {weights_path().name: file_sha256(weights_path())},
        }

    def propose(self, requests: Sequence[MaskRequest]) -> list[MaskProposal]:
        return [self._propose(request) for request in requests]

    def second_look(self, request: MaskRequest, mask: np.ndarray, inpainted: np.ndarray) -> np.ndarray | None:
        """``mask`` with the places that still look like the class; None when the object seems gone.

        It seems gone when the class's probability on ``inpainted`` is low, or when the map finds nothing
        outside ``mask``: filling the same hole again would give the same image.
        """
        small = _squash(inpainted)
        features = self._network.features(to_input(small))
        probability = self._network.logits(features.pooled).softmax(0)[request.class_index]
        if probability <= self._second_look_probability:
            return None
        evidence = self._evidence_map(small, request.class_index, features)
        level = max(self._second_look_floor, float(np.percentile(evidence, self._second_look_percentile)))
        enlarged = np.maximum(mask, _resize_mask((evidence > level).astype(np.uint8) * 255, mask.shape))
        return None if np.array_equal(enlarged, mask) else enlarged

    def second_look_helped(self, request: MaskRequest, first: np.ndarray, second: np.ndarray) -> bool:
        """Whether the class's logit falls by more than ``second_look_gain`` from ``first`` to ``second``."""
        return self._class_logit(first, request) - self._class_logit(second, request) > self._second_look_gain

    def _class_logit(self, image: np.ndarray, request: MaskRequest) -> float:
        features = self._network.features(to_input(_squash(image)))
        return float(self._network.logits(features.pooled)[request.class_index])

    def _propose(self, request: MaskRequest) -> MaskProposal:
        small = _squash(request.image)
        evidence = self._evidence_map(small, request.class_index)
        mask = clean_mask(
            self._cut_out(small, evidence), min_component=self._min_component, fill_holes=self._fill_holes
        )
        height, width = request.image.shape[:2]
        mask = _resize_mask(mask, (height, width))
        return MaskProposal(mask, _boxes(mask, cv2.resize(evidence, (width, height)), request.class_name))

    @torch.no_grad()
    def _evidence_map(self, small: np.ndarray, class_index: int, at_side: FeatureMaps | None = None) -> np.ndarray:
        """Where the class is, ``[224, 224]`` float32 in [0, 1]; ``at_side`` are the maps at 224 if at hand."""
        row = self._network.weight[class_index]
        total = torch.zeros(SIDE, SIDE)
        for scale in self._cam_scales:
            if scale == SIDE and at_side is not None:
                features = at_side
            else:
                features = self._network.features(to_input(small, scale))
            activation = _unit_range(torch.einsum("c,chw->hw", row, features.final))
            total += _resize(activation[None], SIDE, "bicubic")[0]
        return self._propagate(small, _unit_range(total), features)

    def _propagate(self, small: np.ndarray, activation: Tensor, features: FeatureMaps) -> np.ndarray:
        """The activation map spread over pixels alike in features, colour and place, contrast stretched."""
        grid = self._affinity_grid
        lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        lab = cv2.resize(lab, (grid, grid), interpolation=cv2.INTER_AREA)
        line = torch.linspace(-0.5, 0.5, grid)
        points = torch.cat(
            [
                _standardise(_resize(features.middle, grid, "bilinear")),
                _standardise(_resize(features.late, grid, "bilinear")),
                _standardise(torch.from_numpy(lab).permute(2, 0, 1)),
                torch.stack(torch.meshgrid(line, line, indexing="ij")).flatten(1).T,
            ],
            dim=1,
        )
        squares = (points * points).sum(1)
        distance = torch.addmm(squares[None] + squares[:, None], points, points.T, alpha=-2).clamp_(min=0)
        scale = self._affinity_bandwidth * float(distance.mean())
        affinity = distance.div_(-scale).exp_()
        affinity /= affinity.sum(1, keepdim=True)
        spread = F.adaptive_avg_pool2d(activation[None], grid).flatten()
        for _ in range(self._affinity_steps):
            spread = affinity @ spread
        low, high = np.percentile(spread.numpy(), (1, 99))
        if high <= low:
            return np.zeros((SIDE, SIDE), np.float32)
        spread = ((spread - float(low)) / float(high - low)).clamp(0, 1).view(1, grid, grid)
        return _resize(spread, SIDE, "bicubic")[0].clamp(0, 1).numpy()

    def _cut_out(self, small: np.ndarray, evidence: np.ndarray) -> np.ndarray:
        """GrabCut seeded by the map's levels; 0/255. All 0 when the map has no foreground or no background."""
        labels = np.full(evidence.shape, cv2.GC_PR_BGD, np.uint8)
        labels[evidence < self._certain_background] = cv2.GC_BGD
        labels[evidence > self._probable_foreground] = cv2.GC_PR_FGD
        labels[evidence > self._certain_foreground] = cv2.GC_FGD
        foreground = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        if foreground.all() or not foreground.any():  # GrabCut needs samples of both
            return np.zeros(evidence.shape, np.uint8)
        cv2.setRNGSeed(0)  # OpenCV's generator belongs to the thread
        models = np.zeros((1, 65)), np.zeros((1, 65))
        labels, *_ = cv2.grabCut(small, labels, None, *models, self._grabcut_iterations, cv2.GC_INIT_WITH_MASK)
        foreground = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        return (foreground & (evidence > self._keep_above)).astype(np.uint8) * 255


def _squash(image: np.ndarray) -> np.ndarray:
    if image.shape[:2] == (SIDE, SIDE):
        return image
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A 0/255 mask at another size; edges at half coverage."""
    height, width = shape
    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(resized > 127, np.uint8(255), np.uint8(0))


def _resize(maps: Tensor, side: int, mode: str) -> Tensor:
    """``[C, h, w]`` to ``[C, side, side]``."""
    return F.interpolate(maps[None], (side, side), mode=mode, align_corners=False)[0]


def _unit_range(values: Tensor) -> Tensor:
    low, high = values.aminmax()
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def _standardise(maps: Tensor) -> Tensor:
    """``[C, h, w]`` to ``[h * w, C]``, centred, mean norm 1 (0 if all alike)."""
    points = maps.flatten(1).T
    points = points - points.mean(0)
    return points / points.norm(dim=1).mean().clamp(min=torch.finfo(points.dtype).tiny)


def _boxes(mask: np.ndarray, evidence: np.ndarray, phrase: str) -> tuple[Box, ...]:
    """One box around each component, largest first; ``x1, y1`` are just outside. Confidence: mean evidence."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    boxes = []
    for label in sorted(range(1, count), key=lambda index: -stats[index, cv2.CC_STAT_AREA]):
        x, y, width, height, _ = (int(value) for value in stats[label])
        confidence = float(np.clip(evidence[labels == label].mean(), 0, 1))
        boxes.append(Box(x, y, x + width, y + height, phrase, confidence))
    return tuple(boxes)
