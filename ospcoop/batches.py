"""Batches of image features: one shuffled data set of everything, drawn anew each epoch.

Without ID augmentations an epoch touches no pixel: features of the images and of their mirrors are cached, and the
mask of a mirrored image is its mirrored patch grid. With them, images that have a mask or are background are
cropped at random, so those go through the image tower each time; photos without a mask do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from db.progress import Progress
from ospcoop import augmentation
from ospcoop.augmentation import augment, draw_crop, threshold_mask
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.data import Domain, Sample, TrainingSet
from ospcoop.features import FeatureCache, exact_float32
from ospcoop.images import SIDE
from ospcoop.losses import select_patches
from ospcoop.objectives import Batch
from ospcoop.options import TrainingOptions

READERS = 4


class TrainingBatches:
    """The batches of a training set, epoch by epoch. Construction fills the feature cache.

    ``local`` False leaves out what only local terms need. The last, smaller batch of an epoch is dropped, as
    published, unless it is the only one.
    """

    def __init__(
        self,
        data: TrainingSet,
        encoder: VisionLanguageModel,
        cache: FeatureCache,
        options: TrainingOptions,
        progress: Progress,
        *,
        local: bool = True,
    ) -> None:
        self._samples, self._encoder, self._options = data.samples, encoder, options
        self._local = local
        self._grid = math.prod(encoder.local_grid)
        self._ood = len(data.classes)
        self.batch_size = min(options.batch_size, len(data.samples))
        self.steps = len(data.samples) // self.batch_size
        self._label = torch.tensor([sample.label for sample in data.samples])
        self._row = np.full(len(data.samples), -1)
        cached = [i for i, one in enumerate(data.samples) if not (data.crops and one.domain is not Domain.WHOLE)]
        self._row[cached] = np.arange(len(cached))
        images = [data.samples[i].image for i in cached]
        self._features = cache.ensure(images, flips=True, local=local, progress=progress)
        progress.update(0, None, "Reading the masks")
        with ThreadPoolExecutor(READERS, "mask-reader") as readers:
            masks = readers.map(lambda i: self._patches(data.samples[i]), cached) if local else ()
            self._selected = torch.stack([*masks]) if local and cached else torch.empty(0, self._grid).bool()

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch's batches on the CPU; all that is random comes from ``generator``, drawn before the first."""
        order = torch.randperm(len(self._samples), generator=generator)
        flips = torch.rand(len(self._samples), generator=generator) < 0.5
        crop_seed = int(torch.randint(2**62, (), generator=generator))
        for step in range(self.steps):
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self._batch(index.numpy(), flips[index], crop_seed)

    def _batch(self, index: np.ndarray, flip: Tensor, crop_seed: int) -> Batch:
        count, dim = len(index), self._encoder.feature_dim
        whole = torch.empty(count, dim)
        local = torch.empty(count, self._grid, dim) if self._local else None
        selected = torch.empty(count, self._grid, dtype=torch.bool) if self._local else None
        label = self._label[index].clone()
        rows = torch.from_numpy(self._row[index])
        for mirrored, features in ((False, self._features), (True, self._features.flipped)):
            at = torch.nonzero((rows >= 0) & (flip == mirrored)).flatten()
            if not len(at):
                continue
            found = features.take(rows[at].numpy())
            whole[at] = found.whole
            if self._local:
                local[at] = found.local
                patches = self._selected[rows[at]]
                selected[at] = mirror_patches(patches) if mirrored else patches
        at = torch.nonzero(rows < 0).flatten()
        if len(at):
            seen = [(int(index[i]), bool(flip[i])) for i in at]
            pixels, label[at], patches = self._cropped(seen, crop_seed)
            with exact_float32():
                found_whole, found_local = self._encoder.encode_image(pixels)
            whole[at] = found_whole.cpu()
            if self._local:
                local[at], selected[at] = found_local.cpu(), patches
        return Batch(whole, label, local, selected)

    def _cropped(self, seen: Sequence[tuple[int, bool]], crop_seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Network inputs ``[N, 3, S, S]``, labels and patches of samples cropped and flipped from their pixels."""
        options = self._options

        def read(item: tuple[int, bool]) -> tuple[Tensor, augmentation.Sample]:
            number, flip = item
            sample = self._samples[number]
            rng = np.random.default_rng([crop_seed, number])
            cropped = augment(
                augmentation.Sample(sample.image.open(), sample.mask(), sample.label),
                crop=draw_crop(SIDE, rng, random_position=options.random_position),
                flip=flip,
                ood_label=self._ood,
                relabel=sample.domain is Domain.MASKED,
                min_visible=options.min_visible,
                as_published=options.as_published,
            )
            return self._encoder.preprocess(cropped.image), cropped

        with ThreadPoolExecutor(READERS, "crop-reader") as readers:
            pixels, samples = zip(*readers.map(read, seen), strict=True)
        label = torch.tensor([sample.label for sample in samples])
        masks = torch.from_numpy(np.stack([sample.mask for sample in samples]))
        return torch.stack(pixels), label, self._select(masks, label == self._ood)

    def _patches(self, sample: Sample) -> Tensor:
        mask = torch.from_numpy(threshold_mask(sample.mask()))
        return self._select(mask[None], torch.tensor([sample.label == self._ood]))[0]

    def _select(self, masks: Tensor, is_ood: Tensor) -> Tensor:
        return select_patches(masks, is_ood, self._grid, object_pixels=self._options.object_pixels)


def mirror_patches(selected: Tensor) -> Tensor:
    """Patches ``[B, P]``, row by row, of the mirrored masks."""
    side = math.isqrt(selected.shape[1])
    return selected.view(-1, side, side).flip(2).flatten(1)
