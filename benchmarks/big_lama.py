"""The generator of big-lama with random weights, in the form in which its published TorchScript file is used.

Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions" (WACV 2022); fast Fourier
convolution: Chi et al., NeurIPS 2020. The published configuration: width 64, three halvings, 18 residual blocks
of two Fourier convolutions, three quarters of the channels global, no local Fourier unit, sigmoid at the end;
about 51 million parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GLOBAL_SHARE = 0.75
MAX_FEATURES = 512


class FourierUnit(nn.Module):
    """A 1x1 convolution of the spectrum, so that every output pixel sees the whole image. Shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(2 * channels)

    def forward(self, maps: Tensor) -> Tensor:
        batch, channels, height, width = maps.shape
        spectrum = torch.view_as_real(torch.fft.rfft2(maps, norm="ortho"))
        real = spectrum.permute(0, 1, 4, 2, 3).reshape(batch, 2 * channels, height, -1)
        mixed = torch.relu(self.norm(self.mix(real))).reshape(batch, channels, 2, height, -1)
        return torch.fft.irfft2(
            torch.view_as_complex(mixed.permute(0, 1, 3, 4, 2).contiguous()), s=[height, width], norm="ortho"
        )


class SpectralTransform(nn.Module):
    """The way from global to global channels: halve the channels, the Fourier unit beside a skip, widen again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.narrow = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.fourier = FourierUnit(half)
        self.widen = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        narrow = self.narrow(maps)
        return self.widen(narrow + self.fourier(narrow))


class FourierConvolution(nn.Module):
    """FFC, batch norm and ReLU on local and global channels, each of which hears of the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        far = int(channels * GLOBAL_SHARE)
        near = channels - far
        self.near_to_near = _convolution(near, near)
        self.near_to_far = _convolution(near, far)
        self.far_to_near = _convolution(far, near)
        self.far_to_far = SpectralTransform(far)
        self.norm_near = nn.BatchNorm2d(near)
        self.norm_far = nn.BatchNorm2d(far)

    def forward(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        new_near = self.near_to_near(near) + self.far_to_near(far)
        new_far = self.near_to_far(near) + self.far_to_far(far)
        return torch.relu(self.norm_near(new_near)), torch.relu(self.norm_far(new_far))


class FourierBlock(nn.Module):
    """Two Fourier convolutions and the way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = FourierConvolution(channels)
        self.second = FourierConvolution(channels)

    def forward(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        inner_near, inner_far = self.first(near, far)
        inner_near, inner_far = self.second(inner_near, inner_far)
        return near + inner_near, far + inner_far


class BigLama(nn.Module):
    """The TorchScript file's contract: image ``[N, 3, H, W]`` in 0..1 and hole ``[N, 1, H, W]`` 0/1, sides
    divisible by 8, to ``[N, 3, H, W]`` in 0..1 that equals the image outside the hole.

    ``width`` and ``blocks`` default to the published; smaller ones are for trials.
    """

    def __init__(self, width: int = 64, blocks: int = 18) -> None:
        super().__init__()
        widths = [min(MAX_FEATURES, width * 2**level) for level in range(4)]
        self.stem = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(4, widths[0], 7, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            *_halving(widths[0], widths[1]),
            *_halving(widths[1], widths[2]),
        )
        far = int(widths[3] * GLOBAL_SHARE)
        self.to_near = nn.Sequential(*_halving(widths[2], widths[3] - far))
        self.to_far = nn.Sequential(*_halving(widths[2], far))
        self.blocks = nn.ModuleList([FourierBlock(widths[3]) for _ in range(blocks)])
        self.head = nn.Sequential(
            *_doubling(widths[3], widths[2]),
            *_doubling(widths[2], widths[1]),
            *_doubling(widths[1], widths[0]),
            nn.ReflectionPad2d(3),
            nn.Conv2d(widths[0], 3, 7),
            nn.Sigmoid(),
        )

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        maps = self.stem(torch.cat([image * (1 - mask), mask], dim=1))
        near, far = self.to_near(maps), self.to_far(maps)
        for block in self.blocks:
            near, far = block(near, far)
        filled = self.head(torch.cat([near, far], dim=1))
        return mask * filled + (1 - mask) * image


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False, padding_mode="reflect")


def _halving(inputs: int, outputs: int) -> list[nn.Module]:
    return [_convolution(inputs, outputs, 2), nn.BatchNorm2d(outputs), nn.ReLU()]


def _doubling(inputs: int, outputs: int) -> list[nn.Module]:
    up = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
    return [up, nn.BatchNorm2d(outputs), nn.ReLU()]
