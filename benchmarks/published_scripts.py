"""The published way from photo to scored candidate, script by script, one image at a time (OSPCoOp c64144b).

Written from reading the scripts, to be measured beside ours. What they do is done: the photo squashed to 224
pixels and kept as JPEG (datasets/imagenet.py); GroundingDINO and SAM's predictor on one image in float32
(GroundingSAM/masking.py); LaMa built and read from disk again *for each image* (Inpainting/inpainting.py through
Inpaint-Anything); CLIP with the text tower for each image (Inpainting/get_clip_score.py), in half precision on a
GPU. Where the scripts are broken or would be unfairly slow, they are given the benefit:

- prompts are whole class names, and masks are written (as their union), which the script forgets;
- as many boxes are kept as ours keeps, since random weights would let hundreds through;
- LaMa's generator alone is read (its checkpoint also holds the discriminator), and all other models stay loaded.

Deformable attention is plain PyTorch in both ways, as in the installed package; the detector's own repository
can compile a CUDA kernel for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import groundingdino.datasets.transforms as T
import numpy as np
import torch
from groundingdino.config import GroundingDINO_SwinT_OGC
from groundingdino.models import build_model
from groundingdino.util.slconfig import SLConfig
from groundingdino.util.utils import clean_state_dict, get_phrases_from_posmap
from PIL import Image
from segment_anything import SamPredictor, sam_model_registry
from simple_lama_inpainting.utils.util import prepare_img_and_mask
from torch import Tensor, nn

from benchmarks.big_lama import BigLama
from benchmarks.gpu import Stopwatch
from benchmarks.published_clip import PublishedClip
from benchmarks.random_models import BOX_THRESHOLD, MAX_BOXES, TEXT_THRESHOLD, ModelFiles
from generation.classes import load_imagenet_classes
from generation.masking.prompts import prompt_for

WORKING_SIDE = 224
DILATION = 12
FOLDERS = ("raw", "mask", "inpaint", "visualization", "score_inpaint")


class PublishedScripts:
    """The models of all three scripts on ``device``, and the folders they write into under ``root``.

    ``stopwatch`` gets the seconds of each step.
    """

    def __init__(self, files: ModelFiles, root: Path, device: torch.device, stopwatch: Stopwatch) -> None:
        self._files, self._root, self._device, self._stopwatch = files, root, device, stopwatch
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        self._checkpoint = root / "lama.ckpt"
        torch.save(torch.jit.load(files.lama, map_location="cpu").state_dict(), self._checkpoint)
        self._detector = _groundingdino(files).to(device)
        sides = T.RandomResize([files.short_side], max_size=files.max_side)
        normalise = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self._to_input = T.Compose([sides, T.ToTensor(), normalise])
        self._predictor = SamPredictor(sam_model_registry[files.sam_variant](checkpoint=str(files.sam)).to(device))
        self._classes = load_imagenet_classes()
        half = torch.float16 if device.type == "cuda" else torch.float32
        self._clip = PublishedClip(files.clip, self._classes.names, device, half)

    def run(self, photo: Path, class_index: int) -> float:
        """One photo through all scripts; its drop."""
        with self._stopwatch("decode"):
            raw = self._path("raw", photo, ".JPEG")
            with Image.open(photo) as image:
                squashed = image.convert("RGB").resize((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS)
            squashed.save(raw)
        self.mask(raw, self._classes.names[class_index])
        self.inpaint(raw)
        return self.score(raw, class_index)

    def mask(self, raw: Path, class_name: str) -> None:
        """``mask/<stem>.png`` of ``raw``, all 0 where nothing is found."""
        with self._stopwatch("detector"):
            picture = Image.open(raw).convert("RGB")
            boxes = self._boxes(picture, prompt_for(class_name))
        with self._stopwatch("SAM encoder"):
            image = cv2.cvtColor(cv2.imread(str(raw)), cv2.COLOR_BGR2RGB)
            self._predictor.set_image(image)
        with self._stopwatch("mask decoder"):
            mask = self._union(boxes, image.shape[:2])
        with self._stopwatch("write"):
            Image.fromarray(np.stack([mask] * 3, axis=-1)).save(self._path("mask", raw, ".png"))

    def inpaint(self, raw: Path) -> None:
        """``inpaint/<stem>.png`` from ``raw`` and its mask, and the strip of three pictures that the script keeps."""
        with self._stopwatch("write"):
            image = np.array(Image.open(raw))
            mask = np.array(Image.open(self._path("mask", raw, ".png")))[:, :, 0]
        with self._stopwatch("LaMa"):
            dilated = cv2.dilate(mask, np.ones((DILATION, DILATION), np.uint8), iterations=1)
            with self._stopwatch("LaMa from disk"):
                lama = self._load_lama()
            filled = _fill(lama, image, dilated, self._device)
        with self._stopwatch("write"):
            Image.fromarray(filled).save(self._path("inpaint", raw, ".png"))
            strip = np.concatenate((image, filled, np.stack([dilated] * 3, axis=-1)), axis=1)
            Image.fromarray(strip).save(self._path("visualization", raw, ".png"))

    def score(self, raw: Path, class_index: int) -> float:
        """The drop, which the script writes into the name of a copy of the candidate."""
        candidate = self._path("inpaint", raw, ".png")
        with self._stopwatch("CLIP"):
            after, before = (self._logit(path, class_index) for path in (candidate, raw))
        with self._stopwatch("write"):
            shutil.copyfile(candidate, self._root / "score_inpaint" / f"{raw.stem}_{before - after}.JPEG")
        return before - after

    def _path(self, folder: str, photo: Path, suffix: str) -> Path:
        return self._root / folder / f"{photo.stem}{suffix}"

    @torch.no_grad()
    def _boxes(self, picture: Image.Image, caption: str) -> Tensor:
        """Corners ``[K, 4]`` in pixels on the CPU."""
        pixels, _ = self._to_input(picture, None)
        outputs = self._detector(pixels.to(self._device)[None], captions=[caption])
        scores, boxes = outputs["pred_logits"].cpu().sigmoid()[0], outputs["pred_boxes"].cpu()[0]
        best = scores.amax(dim=1)
        kept = best.argsort(descending=True, stable=True)[: int((best > BOX_THRESHOLD).sum())][:MAX_BOXES]
        tokens = self._detector.tokenizer(caption)
        for one in scores[kept]:
            get_phrases_from_posmap(one > TEXT_THRESHOLD, tokens, self._detector.tokenizer)
        width, height = picture.size
        centres, sizes = (boxes[kept] * torch.tensor([width, height, width, height])).split(2, dim=1)
        return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)

    def _union(self, boxes: Tensor, shape: tuple[int, int]) -> np.ndarray:
        if not len(boxes):
            return np.zeros(shape, np.uint8)
        prompts = self._predictor.transform.apply_boxes_torch(boxes, shape).to(self._device)
        masks, _, _ = self._predictor.predict_torch(
            point_coords=None, point_labels=None, boxes=prompts, multimask_output=False
        )
        return masks[:, 0].any(dim=0).cpu().numpy().astype(np.uint8) * 255

    def _load_lama(self) -> nn.Module:
        lama = BigLama(**self._files.lama_sizes)
        lama.load_state_dict(torch.load(self._checkpoint, map_location="cpu", weights_only=True))
        return lama.eval().requires_grad_(False).to(self._device)

    def _logit(self, path: Path, class_index: int) -> float:
        logits, _ = self._clip.logits(np.array(Image.open(path)))
        return float(logits[class_index])


def _groundingdino(files: ModelFiles) -> nn.Module:
    shipped = {key: value for key, value in vars(GroundingDINO_SwinT_OGC).items() if not key.startswith("__")}
    with redirect_stdout(StringIO()):  # the package prints
        model = build_model(SLConfig({**shipped, **files.architecture, "text_encoder_type": str(files.bert)}))
    state = torch.load(files.groundingdino, map_location="cpu", weights_only=True)["model"]
    model.load_state_dict(clean_state_dict(state), strict=False)
    return model.eval()


@torch.no_grad()
def _fill(
    lama: Callable[[Tensor, Tensor], Tensor], image: np.ndarray, hole: np.ndarray, device: torch.device
) -> np.ndarray:
    pixels, holes = prepare_img_and_mask(image, hole, device)
    filled = lama(pixels, holes)[0].permute(1, 2, 0).cpu().numpy()
    height, width = hole.shape
    return np.clip(filled * 255, 0, 255).astype(np.uint8)[:height, :width]
