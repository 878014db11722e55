"""Learned context vectors in front of (around, behind) the class names: CoOp, IJCV 2022, as OSPCoOp uses it.

The prompt "X X ... X <name>." is tokenised and embedded once; the context vectors then stand where the X are.
With SOT and EOT the start and end tokens:

    end     [SOT, context, name . EOT]
    front   [SOT, name, context, . EOT]
    middle  [SOT, context[:n // 2], name, context[n // 2:], . EOT]

Tokens after the longest prompt are not kept: behind a causal mask (CLIP) or outside the attention mask (the
embedded encoder) they change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.text_tower import prompt_features

ClassPosition = Literal["end", "middle", "front"]

CONTEXT_STD = 0.02
PLACEHOLDER = "X"


class PromptLearner(nn.Module):
    """The context vectors (the only parameter, ``context``, float32) and the prompts they stand in.

    ``class_names``: ``C`` names, "_" read as a blank. ``n_ctx``: how many vectors, when there are no
    ``init_words``; those give one vector a token, the token's embedding. ``as_published`` counts one vector a
    *word* instead, so the later tokens of a rare word stay fixed; the same where every word is one token.
    ``class_specific`` keeps one context a class, ``[C, n_ctx, W]``, instead of ``[n_ctx, W]``; without words a
    context starts normal with deviation 0.02 from ``seed``. ``state_dict()`` holds ``context`` alone.

    ValueError when there is no class, no context vector, an unknown position, or a prompt that is too long.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        class_names: Sequence[str],
        *,
        n_ctx: int = 16,
        init_words: str | None = None,
        class_specific: bool = False,
        class_position: ClassPosition = "end",
        seed: int = 0,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        if not class_names:
            raise ValueError("The prompt learner needs at least one class name.")
        if class_position not in ("end", "middle", "front"):
            raise ValueError(f"The class position is 'end', 'middle' or 'front', not {class_position!r}.")
        names = [name.replace("_", " ") for name in class_names]
        prefix, n_ctx, lead = _prefix(model, n_ctx, init_words, as_published)
        if n_ctx < 1:
            raise ValueError("The prompt learner needs at least one context vector.")

        self.name_lengths: tuple[int, ...] = tuple(_token_count(model, name) for name in names)
        self.token_ids, self.attention_mask = model.tokenize([f"{prefix} {name}." for name in names])
        for name, length, tokens in zip(names, self.name_lengths, self.attention_mask.sum(1).tolist(), strict=True):
            # The full stop may have become one token with the name's last sign ("...prey)."); the words before not.
            if tokens not in (length + lead + 3, length + lead + 2):
                raise ValueError(f"The prompt of {name!r} does not fit the text tower, or its tokens run together.")
        with torch.no_grad():
            embedded = model.embed_tokens(self.token_ids).float()
        self.lengths: tuple[int, ...] = tuple(self.attention_mask.sum(1).tolist())
        self.class_position = class_position
        layout = self._layout(n_ctx, embedded.shape[1])
        self._context_end = int((layout >= embedded.shape[1]).any(0).nonzero().max()) + 1
        self.register_buffer("_embedded", embedded, persistent=False)
        self.register_buffer("_source", layout.to(embedded.device), persistent=False)

        if init_words is None:
            shape = (n_ctx, embedded.shape[2])
            generator = torch.Generator().manual_seed(seed)
            start = torch.randn((len(names), *shape) if class_specific else shape, generator=generator) * CONTEXT_STD
            start = start.to(embedded.device)
        else:
            start = embedded[:, 1 : 1 + n_ctx] if class_specific else embedded[0, 1 : 1 + n_ctx]
        self.context = nn.Parameter(start.clone())

    @property
    def n_ctx(self) -> int:
        return self.context.shape[-2]

    @property
    def shared_length(self) -> int:
        """How many tokens at the front are the same in every prompt: the start token and the context behind it."""
        before_name = {"end": self.n_ctx, "middle": self.n_ctx // 2, "front": 0}[self.class_position]
        return 1 + (before_name if self.context.ndim == 2 else 0)

    def forward(self) -> Tensor:
        """The prompts' word embeddings ``[C, L, W]``, differentiable in ``context``; see ``attention_mask``."""
        return self.embeddings()

    def embeddings(
        self,
        classes: Tensor | None = None,
        start: int = 0,
        stop: int | None = None,
        *,
        context: Tensor | None = None,
    ) -> Tensor:
        """Word embeddings ``[N, stop - start, W]`` of some classes (int64 ``[N]``) and positions; all by default.

        ``context`` stands in for the parameter, so that a checkpointed function can take it as an argument.
        """
        context = self.context if context is None else context
        classes = torch.arange(len(self._embedded), device=self._embedded.device) if classes is None else classes
        length = self._embedded.shape[1]
        source = self._source[classes, start:stop]
        fixed = self._embedded[classes[:, None], source.clamp(max=length - 1)]
        if start >= self._context_end:
            return fixed
        index = (source - length).clamp(min=0)
        learned = context[index] if context.ndim == 2 else context[classes[:, None], index]
        return torch.where((source >= length).unsqueeze(-1), learned, fixed)

    def text_features(self, model: VisionLanguageModel) -> Tensor:
        """Text features ``[C, D]`` of the prompts; the gradient reaches ``context``."""
        return prompt_features(model, self)

    def _layout(self, n_ctx: int, length: int) -> Tensor:
        """For each class and position, which row of [prompt tokens ; context] stands there: ``[C, L]``."""
        context = list(range(length, length + n_ctx))
        first, rows = 1 + n_ctx, []
        for name_length in self.name_lengths:
            name = list(range(first, first + name_length))
            rest = list(range(first + name_length, length))
            half = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[self.class_position]
            rows.append([0, *context[:half], *name, *context[half:], *rest])
        return torch.tensor(rows)


def _prefix(model: VisionLanguageModel, n_ctx: int, init_words: str | None, as_published: bool) -> tuple[str, int, int]:
    """The words before the name, how many vectors replace them, and how many tokens they are."""
    if init_words is None:
        return " ".join([PLACEHOLDER] * n_ctx), n_ctx, n_ctx
    words = init_words.replace("_", " ").split()
    prefix = " ".join(words)
    tokens = _token_count(model, prefix)
    return prefix, len(words) if as_published else tokens, tokens


def _token_count(model: VisionLanguageModel, text: str) -> int:
    """Tokens of ``text`` without the start and end tokens."""
    _, mask = model.tokenize([text])
    return int(mask.sum()) - 2


def cosine_logits(features: Tensor, text_features: Tensor, logit_scale: float) -> Tensor:
    """``logit_scale * cosine`` of ``[..., D]`` image features and ``[C, D]`` text features: ``[..., C]``."""
    image = nn.functional.normalize(features, dim=-1)
    text = nn.functional.normalize(text_features, dim=-1)
    return logit_scale * image @ text.T
