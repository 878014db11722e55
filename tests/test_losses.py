"""The loss, its patches and its schedule against answers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ospcoop.losses import negative_entropy, ospcoop_loss, select_patches
from ospcoop.schedule import learning_rate, make_optimizer, set_learning_rate

CLASSES = 4


def batch(labels, patches=49, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(labels), CLASSES, generator=generator).requires_grad_()
    local = torch.randn(len(labels), patches, CLASSES, generator=generator).requires_grad_()
    return logits, local, torch.tensor(labels), torch.ones(len(labels), patches, dtype=torch.bool)


@pytest.mark.parametrize("patches", [49, 196])
def test_a_patch_leaves_at_more_than_the_threshold(patches):
    size = 224 // math.isqrt(patches)
    mask = torch.zeros(2, 224, 224, dtype=torch.uint8)
    patch = mask[:, :size, size : 2 * size]
    patch[:, : 100 // size + 1, :] = 255
    count = int((patch[0] == 255).sum())
    is_ood = torch.tensor([False, True])
    selected = select_patches(mask, is_ood, patches, object_pixels=count - 1)
    assert not selected[0, 1] and selected[0].sum() == patches - 1
    assert selected[1].all(), "every patch of an OOD sample counts"
    assert select_patches(mask, is_ood, patches, object_pixels=count).all(), "exactly the threshold stays"


def test_the_published_threshold_counts_pixels_of_255_only():
    mask = torch.zeros(1, 224, 224, dtype=torch.uint8)
    mask[0, :10, :10] = 255
    none = torch.tensor([False])
    assert select_patches(mask, none, 196).all()
    mask[0, 10, 0] = 254
    assert select_patches(mask, none, 196).all()
    mask[0, 10, 0] = 255
    assert select_patches(mask, none, 196).flatten().tolist() == [False, *[True] * 195]


def test_patches_that_do_not_tile_are_refused():
    for patches, side in ((50, 224), (49, 225), (0, 224)):
        with pytest.raises(ValueError, match="do not tile"):
            select_patches(torch.zeros(1, side, side, dtype=torch.uint8), torch.tensor([False]), patches)


def test_negative_entropy_runs_from_minus_log_c_to_zero():
    assert negative_entropy(torch.zeros(3, 8)).tolist() == pytest.approx([-math.log(8)] * 3, abs=1e-4)
    assert negative_entropy(torch.tensor([[1000.0, 0.0]])).item() == pytest.approx(0, abs=2e-5)


def test_the_whole_is_the_weighted_sum_of_its_parts():
    logits, local, label, selected = batch([0, CLASSES, 3])
    parts = ospcoop_loss(logits, local, label, selected, loss1=2.0, loss2=0.25)
    assert parts.loss_id.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits[[0, 2]], label[[0, 2]]).item()
    )
    assert parts.loss_ood.item() == pytest.approx(negative_entropy(logits[1]).item())
    expected = parts.loss_id + 2.0 * parts.loss_en + 0.25 * parts.loss_ood
    assert parts.total.item() == pytest.approx(expected.item())
    assert parts.accuracy.item() in (0, 50, 100)


def test_what_a_batch_lacks_is_left_out_and_never_nan():
    logits, local, label, selected = batch([CLASSES, CLASSES])
    parts = ospcoop_loss(logits, local, label, selected)
    assert parts.loss_id is None and parts.accuracy is None
    parts.total.backward()
    assert torch.isfinite(logits.grad).all() and torch.isfinite(local.grad).all()

    logits, local, label, selected = batch([0, 1])
    parts = ospcoop_loss(logits, local, label, torch.zeros_like(selected))
    assert parts.loss_ood is None and parts.loss_en.item() == 0
    assert parts.total.shape == () and parts.total.item() == pytest.approx(parts.loss_id.item())
    parts.total.backward()
    assert local.grad is None and torch.isfinite(logits.grad).all()


def test_the_local_mean_is_over_all_selected_patches_together():
    logits, local, label, selected = batch([0, 1])
    selected[0, 1:] = False
    parts = ospcoop_loss(logits, local, label, selected)
    assert parts.loss_en.item() == pytest.approx(negative_entropy(local[selected]).mean().item())


def test_faulty_batches_are_refused():
    logits, local, label, selected = batch([0, 1])
    for wrong in ([-1, 0], [0, CLASSES + 1]):
        with pytest.raises(ValueError, match="Labels run from 0 to 4"):
            ospcoop_loss(logits, local, torch.tensor(wrong), selected)
    with pytest.raises(ValueError, match="empty"):
        ospcoop_loss(logits[:0], local[:0], label[:0], selected[:0])


def test_the_learning_rate_is_one_constant_epoch_and_an_unfinished_cosine():
    rates = [learning_rate(epoch, 50) for epoch in range(50)]
    assert rates[0] == 1e-5 and rates[1] == 0.002
    assert rates[26] == pytest.approx(0.001)
    assert rates[-1] == pytest.approx(7.9e-6, rel=1e-2)
    assert learning_rate(19, 20) == pytest.approx(4.9e-5, rel=1e-2)
    for epoch in (-1, 50):
        with pytest.raises(ValueError, match="Epochs run from 0 to 49"):
            learning_rate(epoch, 50)


def test_the_optimizer_takes_the_published_step():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer([weight])
    velocity, expected = 0.0, 1.0
    for lr, gradient in ((1e-5, 2.0), (0.002, -1.0), (0.001, 0.5)):
        weight.grad = torch.tensor([gradient])
        set_learning_rate(optimizer, lr)
        optimizer.step()
        decayed = gradient + 5e-4 * expected
        velocity = 0.9 * velocity + decayed if velocity else decayed
        expected -= lr * velocity
        assert weight.item() == pytest.approx(expected, rel=1e-6)
