"""Foreign weights: what they are, where they lie, how they come. See docs/weights.md.

``locate`` is what a backend calls, ``weights_sha256`` what its fingerprint holds; ``fetch``, ``list_weights`` and
``verify`` are the commands of ``launch.py weights``. Only ``fetch`` ever uses the network.
"""

from generation.weights.errors import (
    DiskFull,
    DownloadFailed,
    UnknownWeights,
    WeightsError,
    WeightsMissing,
    WrongWeights,
)
from generation.weights.fetching import Fetched, fetch
from generation.weights.manifest import Weight, WeightFile, load_manifest, published_names, readable_size
from generation.weights.places import (
    WeightRow,
    list_weights,
    locate,
    offline_reason,
    verify,
    weights_folder,
    weights_sha256,
)

__all__ = [
    "DiskFull",
    "DownloadFailed",
    "Fetched",
    "UnknownWeights",
    "Weight",
    "WeightFile",
    "WeightRow",
    "WeightsError",
    "WeightsMissing",
    "WrongWeights",
    "fetch",
    "list_weights",
    "load_manifest",
    "locate",
    "offline_reason",
    "published_names",
    "readable_size",
    "verify",
    "weights_folder",
    "weights_sha256",
]
