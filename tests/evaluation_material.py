"""The training material with val photos, a frozen build, the four classic OOD sets and a finished run beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from db.models import Split
from db.progress import NoProgress
from db.workspace import Workspace, open_workspace
from exports.builds import freeze
from exports.rules import PRESETS
from generation.decode import decode_rgb
from generation.pipeline import generate
from generation.sources import ImportSpec, import_images, open_source
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.evaluation.evaluate import EvaluationReport, evaluate
from ospcoop.evaluation.request import EvaluationRequest
from ospcoop.evaluation.sets import CLASSIC_NAMES, Readers, register
from ospcoop.options import TrainingOptions
from ospcoop.runs import EncoderChoice
from ospcoop.training import train_run
from tests.train_photos import NOOP, WNIDS, backends
from tests.training_material import TINY, make_material, plan, tiny_encoder

VAL_PHOTOS = 8
CLASSIC_IMAGES = 3
FAST = TrainingOptions(epochs=2, batch_size=12, n_ctx=4, lr=0.02)
READERS = Readers(open_source, decode_rgb)


def write_image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((66, 54), Image.Resampling.BICUBIC).save(path)
    return path


def evaluation_material(folder: Path) -> Path:
    """The workspace's folder. Run "first" is trained and finished."""
    root = make_material(folder)
    for number in range(VAL_PHOTOS):
        write_image(folder / "val" / WNIDS[number % 4] / f"val_{number}.png", 100 + number)
    workspace = open_workspace(root)
    import_images(workspace, ImportSpec("imagefolder", folder / "val", None, Split.VAL))
    generate(workspace, NOOP, backends=backends())
    freeze(workspace, "bg", PRESETS["bg"])
    for place, name in enumerate(CLASSIC_NAMES):
        for number in range(CLASSIC_IMAGES):
            write_image(folder / name / f"{number}.png", 1000 * (place + 1) + number)
        register(workspace, name, folder / name, decode_rgb, NoProgress())
    train(workspace, name="first")
    workspace.close()
    return root


def train(workspace: Workspace, options: TrainingOptions = FAST, *, name: str, **more: object) -> int:
    run = plan(workspace, options, name=name).run
    train_run(workspace, run.id, tiny_encoder(), open_source, NoProgress(), **more)
    return run.id


def load_tiny(choice: EncoderChoice) -> OpenClipModel:
    assert choice == TINY
    return tiny_encoder()


def request(**values: object) -> EvaluationRequest:
    return EvaluationRequest(**{"encoder": TINY, "resamples": 50, **values})


def run_request(workspace: Workspace, asked: EvaluationRequest, **more: object) -> EvaluationReport:
    given = {"load_encoder": load_tiny, "readers": READERS, "progress": NoProgress(), **more}
    return evaluate(workspace, asked, **given)
