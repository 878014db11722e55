"""The text features of learned prompts, computed without the work that changes nothing.

Three things are left out, and the result is the same to the rounding of float sums:

* tokens behind a prompt's end token (behind a causal mask, or outside the attention mask): prompts go through by
  length, each with its own few tokens;
* in a causal tower, the repetition of what all prompts share (:mod:`ospcoop.clip.prefix_tower`);
* in its last block, every token but the end tokens.

When what the backward pass would have to keep is more than ``memory`` bytes, the classes go through in pieces that
are computed again on the way back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ospcoop.clip.protocol import VisionLanguageModel

if TYPE_CHECKING:
    from ospcoop.prompt_learner import PromptLearner

MEMORY = 2 * 2**30
# What one token leaves behind in one block, in numbers of its width: the two norms' inputs, queries, keys and
# values, and twice the MLP's four-fold width; the rest is for attention weights and the sums' outputs.
KEPT_WIDTHS = 16
SPARE_TOKENS = {"cpu": 64, "cuda": 1024}


@dataclass(frozen=True)
class Piece:
    """Classes that go through together, ``length`` tokens each behind the shared ones."""

    classes: tuple[int, ...]
    length: int

    @property
    def tokens(self) -> int:
        return len(self.classes) * self.length


def by_length(lengths: Sequence[int], spare: int) -> list[Piece]:
    """Every class once, grouped by length, longest first; a group may hold up to ``spare`` tokens of padding.

    Padding merges the few long names, so that they do not cost a pass through the tower each.
    """
    counts = Counter(lengths)
    ceilings: dict[int, int] = {}
    ceiling = padding = 0
    for length in sorted(counts, reverse=True):
        padding += counts[length] * (ceiling - length)
        if not ceiling or padding > spare:
            ceiling, padding = length, 0
        ceilings[length] = ceiling
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(ceilings[length], []).append(index)
    return [Piece(tuple(groups[length]), length) for length in sorted(groups, reverse=True)]


def cut(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """The pieces cut so that none has more than ``most`` tokens; a single class may have."""
    parts = []
    for piece in pieces:
        step = max(1, most // piece.length)
        parts += [Piece(piece.classes[i : i + step], piece.length) for i in range(0, len(piece.classes), step)]
    return parts


class PromptTower:
    """Text features of a learner's prompts, as often as asked for; the plan is made once.

    ``memory`` is the number of bytes the backward pass may keep before classes go through in pieces. The plan,
    and so every bit of the result, depends on it and on the kind of device, never on what memory is free.
    """

    def __init__(self, model: VisionLanguageModel, learner: PromptLearner, *, memory: int = MEMORY) -> None:
        self._model, self._learner = model, learner
        self._prefix_tower = model.prefix_tower()
        self.shared = learner.shared_length if self._prefix_tower is not None else 0
        device = learner.context.device
        spare = SPARE_TOKENS.get(device.type, SPARE_TOKENS["cuda"])
        self.pieces = by_length([length - self.shared for length in learner.lengths], spare)
        kept = kept_bytes(model, sum(piece.tokens for piece in self.pieces))
        self.recomputes = kept > memory
        if self.recomputes:
            self.pieces = cut(self.pieces, memory // kept_bytes(model, 1))
        order = [index for piece in self.pieces for index in piece.classes]
        self._back = torch.tensor(order, device=device).argsort()
        self._classes = [torch.tensor(piece.classes, device=device) for piece in self.pieces]
        lengths = torch.tensor(learner.lengths, device=device)
        self._ends = [lengths[classes] - self.shared - 1 for classes in self._classes]

    def __call__(self) -> Tensor:
        """Text features ``[C, D]`` in the order of the classes; the gradient reaches the learner's context."""
        prefix = None
        if self._prefix_tower is not None:
            any_class = self._classes[0][:1]
            prefix = self._prefix_tower.prefix(self._learner.embeddings(any_class, stop=self.shared)[0])
        parts = [
            self._run(prefix, classes, end, piece.length)
            for piece, classes, end in zip(self.pieces, self._classes, self._ends, strict=True)
        ]
        return torch.cat(parts)[self._back]

    def _run(self, prefix: Tensor | None, classes: Tensor, end: Tensor, length: int) -> Tensor:
        def encode(prefix: Tensor | None, context: Tensor) -> Tensor:
            embeddings = self._learner.embeddings(classes, self.shared, self.shared + length, context=context)
            if prefix is not None:
                return self._prefix_tower.encode(prefix, embeddings, end)
            mask = torch.arange(length, device=end.device) <= end[:, None]
            return self._model.encode_token_embeddings(embeddings, mask.long())

        return self._maybe_again(encode, prefix, self._learner.context)

    def _maybe_again(self, encode: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        if not (self.recomputes and torch.is_grad_enabled()):
            return encode(*inputs)
        return checkpoint(encode, *inputs, use_reentrant=False, preserve_rng_state=False)


def kept_bytes(model: VisionLanguageModel, tokens: int) -> int:
    """About how many bytes ``tokens`` leave in the text tower for the backward pass, in float32."""
    return 4 * KEPT_WIDTHS * model.token_dim * model.text_layers * tokens


def prompt_features(model: VisionLanguageModel, learner: PromptLearner, *, memory: int = MEMORY) -> Tensor:
    """Text features ``[C, D]`` of the learner's prompts, once; :class:`PromptTower` for a loop."""
    return PromptTower(model, learner, memory=memory)()
