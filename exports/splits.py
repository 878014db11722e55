"""Bg-val and Bg-test: which part of a set an image belongs to, decided by its source photo alone."""

from __future__ import annotations

VAL_SHARE = 0.1


def part_of(source_sha256: str) -> str:
    """``val`` for about one source photo in ten, else ``test``.

    From the photo's sha256 and nothing else: every candidate of a photo, in every build of every workspace, is in
    the same part, so a threshold chosen on Bg-val never saw a photo of Bg-test.
    """
    return "val" if int(source_sha256[:8], 16) < VAL_SHARE * 2**32 else "test"
