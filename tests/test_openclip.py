"""The open_clip model: its features against their equations, and the files it loads from."""

from __future__ import annotations

import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.preprocess import resize_and_crop
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.clip.weights import read_state_dict
from tests.tiny_clip import tiny_state_dict


@pytest.fixture(scope="module")
def state():
    return tiny_state_dict()


@pytest.fixture(scope="module")
def model(state):
    return OpenClipModel(state)


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8))


def test_it_fits_the_protocol_and_keeps_the_weights_exactly(state, model):
    assert isinstance(model, VisionLanguageModel)
    assert model.local_grid == (7, 7) and model.feature_dim == 32 and model.token_dim == 64
    assert all(torch.equal(value, model.model.state_dict()[key]) for key, value in state.items())
    assert model.logit_scale == pytest.approx(1 / 0.07)
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


def test_local_features_are_the_value_path_of_the_last_block(model, images):
    visual = model.model.visual
    pixels = torch.stack([model.preprocess(image) for image in images])
    whole, local = model.encode_image(images)
    assert whole.shape == (3, 32) and local.shape == (3, 49, 32)
    with torch.no_grad():
        assert torch.allclose(whole, visual(pixels), atol=1e-5)
        last = visual.transformer.resblocks[-1]
        tokens = visual._embeds(pixels)
        for block in visual.transformer.resblocks[:-1]:
            tokens = block(tokens)
        # Attention of every token to itself alone is what the equations say.
        itself = torch.full((50, 50), -torch.inf).fill_diagonal_(0)
        reference = visual.ln_post(last(tokens, attn_mask=itself))[:, 1:] @ visual.proj
    assert torch.allclose(local, reference, atol=1e-5)


def test_batches_equal_single_images(model, images):
    together = model.encode_image(images)
    for index, image in enumerate(images):
        for batch, one in zip(together, model.encode_image([image]), strict=True):
            assert torch.allclose(batch[index], one[0], atol=1e-5)
    whole, local = model.encode_image([])
    assert whole.shape == (0, 32) and local.shape == (0, 49, 32)


def test_resnet_local_features(images):
    model = OpenClipModel(tiny_state_dict(resnet=True))
    whole, local = model.encode_image(images)
    assert model.local_grid == (7, 7) and whole.shape == (3, 32) and local.shape == (3, 49, 32)
    maps = {}
    hook = model.model.visual.layer4.register_forward_hook(lambda *call: maps.update(last=call[2]))
    with torch.no_grad():
        reference = model.model.visual(torch.stack([model.preprocess(image) for image in images]))
    hook.remove()
    assert torch.allclose(whole, reference, atol=1e-5)
    pool = model.model.visual.attnpool
    corner = F.linear(F.linear(maps["last"][:, :, 0, 1], pool.v_proj.weight, pool.v_proj.bias), pool.c_proj.weight)
    assert torch.allclose(local[:, 1], corner + pool.c_proj.bias, atol=1e-5)


def test_texts(model):
    ids, mask = model.tokenize(["", "a photo of a tench."])
    assert ids.tolist()[0][:2] == [49406, 49407] and mask.sum(1).tolist() == [2, 9]
    features = model.encode_text(["", "a photo of a tench."])
    assert torch.allclose(features[1:], model.encode_text(["a photo of a tench."]), atol=1e-5)
    assert model.encode_text([]).shape == (0, 32)
    with pytest.raises(ValueError, match=r"'tench tench.*77 are possible"):
        model.tokenize(["tench " * 80])


def test_preprocessing_is_torchvision_s():
    transforms = pytest.importorskip("torchvision.transforms")
    from PIL import Image

    rng = np.random.default_rng(1)
    for height, width in ((240, 301), (333, 180), (224, 224), (225, 224)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        steps = [transforms.Resize(224, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
        assert np.array_equal(resize_and_crop(image), np.asarray(transforms.Compose(steps)(Image.fromarray(image))))
    with pytest.raises(ValueError, match="float32"):
        resize_and_crop(np.zeros((4, 4, 3), np.float32))


def test_every_kind_of_file_gives_the_same_model(state, model, tmp_path):
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "c.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels, ids = torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.int64)
        torch.jit.save(torch.jit.trace_module(model.model, {"forward": (pixels, ids)}), tmp_path / "d.pt")
    for name in ("a.safetensors", "b.pt", "c.pt", "d.pt"):
        loaded = OpenClipModel.from_file(tmp_path / name)
        assert loaded.weights_sha256 == model.weights_sha256, name
        assert loaded.source == name
    changed = {**state, "text_projection": state["text_projection"] + 1}
    assert OpenClipModel(changed).weights_sha256 != model.weights_sha256


class Trap:
    """What a hostile file would carry: unpickling it calls a function."""

    def __reduce__(self):
        return print, ("the trap ran",)


def test_foreign_code_never_runs(tmp_path, capsys):
    torch.save({"a": Trap()}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", pickle.dumps(Trap()))
        archive.writestr("script/constants.pkl", b"")
    for name in ("plain.pt", "script.pt"):
        with pytest.raises(ValueError, match=name):
            read_state_dict(tmp_path / name)
    assert "trap" not in capsys.readouterr().out


def test_damaged_and_foreign_files_are_named(tmp_path):
    for name in ("short.pt", "short.safetensors"):
        (tmp_path / name).write_bytes(b"\x80\x02")
        with pytest.raises(ValueError, match=name):
            OpenClipModel.from_file(tmp_path / name)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "linear.pt")
    with pytest.raises(ValueError, match=r"linear\.pt does not hold the weights of a CLIP"):
        OpenClipModel.from_file(tmp_path / "linear.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="no state dict"):
        OpenClipModel.from_file(tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError):
        OpenClipModel.from_file(tmp_path / "absent.pt")
