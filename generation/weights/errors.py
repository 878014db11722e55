"""What can be wrong with a weights file, each with what to do about it in its message."""

from __future__ import annotations


class WeightsError(RuntimeError):
    """The base of the others."""


class UnknownWeights(WeightsError, ValueError):
    """A name that is not in the manifest."""


class WeightsMissing(WeightsError):
    """The file is not there, and offline mode or the caller does not let it be fetched."""


class WrongWeights(WeightsError):
    """The file is there, but is not the one the manifest means."""


class DownloadFailed(WeightsError):
    """The download ended without the file. What has come stays in the ``.part``; the same command goes on from it."""


class DiskFull(WeightsError):
    """There is no room for the file."""
