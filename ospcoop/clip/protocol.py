"""What OSPCoOp, the detectors and the scores ask of a vision-language model.

``ospcoop.clip.openclip.OpenClipModel`` and ``ospcoop.clip.embedded.EmbeddedDualEncoder`` both fit; nothing
above this package knows which one it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from ospcoop.clip.prefix_tower import PrefixTower


@runtime_checkable
class VisionLanguageModel(Protocol):
    """A frozen dual encoder with local image features and a text tower that takes token embeddings.

    Features of both towers live in one space of ``feature_dim`` numbers. Their *length* is the model's own
    (CLIP: un-normalised, the embedded encoder: 1), so whoever takes a cosine normalises first.
    """

    name: str
    """Which model this is, e.g. ``"openclip"``."""
    grade: str
    """"paper" for the published method's own models, "embedded" for the stand-in."""
    image_size: int
    """Side in pixels of the square network input."""
    feature_dim: int
    token_dim: int
    text_layers: int
    """Blocks of the text tower; with ``token_dim`` it says what memory training takes."""
    local_grid: tuple[int, int]
    """Rows and columns of the local features; their product is ``P``."""

    @property
    def logit_scale(self) -> float:
        """What a cosine is multiplied with to give a logit (already exponentiated)."""
        ...

    @property
    def weights_sha256(self) -> Mapping[str, str]:
        """SHA-256 of the weights, by file or part; goes into recipes and runs."""
        ...

    def preprocess(self, image: np.ndarray) -> Tensor:
        """``HxWx3 uint8 RGB`` of any size to the network input ``[3, S, S]`` float32."""
        ...

    def encode_image(self, images: Sequence[np.ndarray] | Tensor) -> tuple[Tensor, Tensor]:
        """Global ``[N, D]`` and local ``[N, P, D]`` features, the latter row by row; no gradient.

        ``images`` are ``HxWx3 uint8`` arrays or preprocessed ``[N, 3, S, S]``.
        """
        ...

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids ``[N, L]`` int64 and their mask ``[N, L]`` (1 up to and with the end token).

        ``L`` is the longest text of the call. Each text has one token before and one after its own.
        """
        ...

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Word embeddings ``[N, L, W]`` of ids ``[N, L]``, without positions."""
        ...

    def encode_token_embeddings(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Text features ``[N, D]`` of word embeddings ``[N, L, W]`` and their mask; differentiable."""
        ...

    def prefix_tower(self) -> PrefixTower | None:
        """The text tower with a shared beginning computed once; None where a token sees those behind it too."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text features ``[N, D]``; no gradient."""
        ...
