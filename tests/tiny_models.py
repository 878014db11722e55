"""Tiny models with random weights for the published backends, made by the real libraries' own builders.

Each function writes into a folder the file (or folder) that the backend is given instead of the real weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

# Sizes that the code fixes elsewhere stay: the width of 256 and the Swin-T backbone.
TINY_DINO = {
    "enc_layers": 2,
    "dec_layers": 1,
    "num_queries": 12,
    "dim_feedforward": 64,
    "enc_n_points": 2,
    "dec_n_points": 2,
}
TINY_SAM = "tiny"
WORDS = ("great", "white", "shark", "goldfish", "tabby", "cat", "st", "bernard", "dog", "a", "photo", "of")


def tiny_bert(folder: Path) -> Path:
    """A BERT directory: config, vocabulary and weights of one layer."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(1)
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def tiny_groundingdino(path: Path, bert: Path) -> Path:
    """A checkpoint in the publisher's form ("model", "module." before each name) for ``TINY_DINO``."""
    from groundingdino.config import GroundingDINO_SwinT_OGC
    from groundingdino.models import build_model
    from groundingdino.util.slconfig import SLConfig

    shipped = {key: value for key, value in vars(GroundingDINO_SwinT_OGC).items() if not key.startswith("__")}
    torch.manual_seed(2)
    model = build_model(SLConfig({**shipped, **TINY_DINO, "text_encoder_type": str(bert)}))
    for name, parameter in model.named_parameters():
        # The initial values switch text and box heads nearly off, and no test would notice them.
        if name.endswith(("gamma_v", "gamma_l")):
            nn.init.constant_(parameter, 1.0)
        elif "bbox_embed" in name or "sampling_offsets.weight" in name:
            nn.init.normal_(parameter, std=0.05)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model": {**state, "module.label_enc.weight": torch.zeros(1)}, "epoch": 1}, path)
    return path


def build_tiny_sam(checkpoint: str | None = None) -> nn.Module:
    """What ``sam_model_registry[TINY_SAM]`` is to be: two thin encoder layers before SAM's own decoder."""
    from segment_anything.build_sam import _build_sam

    return _build_sam(
        encoder_embed_dim=16,
        encoder_depth=2,
        encoder_num_heads=2,
        encoder_global_attn_indexes=[],
        checkpoint=checkpoint,
    )


def tiny_sam(path: Path) -> Path:
    """A checkpoint of :func:`build_tiny_sam`, a bare state dict as the publisher's are."""
    torch.manual_seed(3)
    torch.save(build_tiny_sam().state_dict(), path)
    return path


class _TinyLama(nn.Module):
    """LaMa's contract: the image outside the hole, something made of its surroundings inside."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        assert image.shape[2] % 8 == 0 and image.shape[3] % 8 == 0
        filled = torch.sigmoid(self.convolutions(torch.cat([image * (1 - mask), mask], dim=1)))
        return mask * filled + (1 - mask) * image


def tiny_lama(path: Path) -> Path:
    """A TorchScript file."""
    torch.manual_seed(4)
    torch.jit.script(_TinyLama().eval()).save(path)
    return path


def build_tiny_clip() -> nn.Module:
    """A ViT CLIP for 32-pixel images with OpenAI's key names and vocabulary; always the same weights."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(5)
    model = CLIP(
        embed_dim=32,
        vision_cfg=CLIPVisionCfg(layers=2, width=64, patch_size=8, image_size=32),
        text_cfg=CLIPTextCfg(context_length=77, width=64, heads=1, layers=2),
        quick_gelu=True,
    )
    nn.init.normal_(model.visual.proj, std=0.2)
    return model.eval()


def tiny_clip(path: Path) -> Path:
    """The state dict of :func:`build_tiny_clip`."""
    state = {key: value for key, value in build_tiny_clip().state_dict().items() if not key.endswith("attn_mask")}
    torch.save(state, path)
    return path
