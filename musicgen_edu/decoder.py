"""Room 04: a transformer that writes K streams of codes while it looks at the text.

MusicGen's decoder (Copet et al. 2023, arXiv:2306.05284, section 2.4). At each step the embeddings of the K codes are
summed into one vector; pre-norm layers let it look at its own past (causal self-attention) and at the prompt
(cross-attention); K linear heads then score the next code of every stream. Modules carry the names they have in
transformers' `MusicgenForCausalLM`, so that a checkpoint's keys differ by a prefix only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from musicgen_edu._checks import check_codes
from musicgen_edu.conditioning import Condition
from musicgen_edu.config import DecoderConfig

PerHead = Float[Tensor, "batch heads positions head_size"]
PerNewStep = Float[Tensor, "batch heads new_steps head_size"]
KeysAndValues = tuple[PerHead, PerHead]


def sinusoidal_positions(
    start: int, steps: int, width: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "steps model_width"]:
    """Return the positions `start … start + steps − 1` as waves of `width / 2` frequencies: [cos, sin].

    Source: tensor2tensor's variant of Vaswani et al. 2017, section 3.5, as in audiocraft's `create_sin_embedding`.
    """
    half = width // 2
    ramp = torch.arange(half, device=device, dtype=torch.float32)  # float32: bfloat16 cannot tell 257 from 258
    frequencies = torch.exp(ramp * -(math.log(10_000) / (half - 1)))  # from 1 down to 1/10,000 radians a step
    phases = torch.arange(start, start + steps, device=device, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([phases.cos(), phases.sin()], dim=1)


def attention_weights(
    queries: Float[Tensor, "batch heads steps head_size"],
    keys: Float[Tensor, "batch heads positions head_size"],
    mask: Bool[Tensor, "#batch #heads #steps positions"] | None = None,
) -> Float[Tensor, "batch heads steps positions"]:
    """Return how much each step looks at each position: softmax(QKᵀ / √head_size), rows sum to 1.

    For looking only. The decoder calls PyTorch's fused kernel, which never forms this matrix. A row in which nothing
    may be looked at is 0, as in that kernel.
    """
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1).nan_to_num(0.0)


class LayerCache:
    """One layer's keys and values: of the past steps, in memory reserved once, and of the text."""

    def __init__(self, shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype) -> None:
        self.keys = torch.empty(shape, device=device, dtype=dtype)  # [batch, heads, max_steps, head_size]
        self.values = torch.empty_like(self.keys)
        self.text: tuple[Tensor, Tensor] | None = None  # computed at the first call with these words

    def append(self, start: int, keys: PerNewStep, values: PerNewStep) -> KeysAndValues:
        """Write the new steps behind the first `start` ones and return all steps so far, as views."""
        end = start + keys.shape[2]
        self.keys[:, :, start:end] = keys.detach()  # a cache serves generation: it carries no gradient
        self.values[:, :, start:end] = values.detach()
        return self.keys[:, :, :end], self.values[:, :, :end]


class DecoderCache:
    """What the decoder remembers between calls, so that each call computes the new steps only.

    It belongs to one generation: one batch, one set of prompts, at most `max_steps` steps. `steps` counts those seen.
    """

    def __init__(
        self,
        config: DecoderConfig,
        batch: int,
        max_steps: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (batch, config.num_heads, max_steps, config.hidden_size // config.num_heads)
        self.layers = [LayerCache(shape, device, dtype) for _ in range(config.num_layers)]
        self.max_steps = max_steps
        self.steps = 0


class Attention(nn.Module):
    """Multi-head attention without biases (Vaswani et al. 2017, section 3.2.2)."""

    attend = staticmethod(F.scaled_dot_product_attention)  # PyTorch's fused kernel; room 14 has another way

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(
        self,
        states: Float[Tensor, "batch steps model_width"],
        keys: PerHead,
        values: PerHead,
        mask: Bool[Tensor, "#batch 1 #steps positions"] | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "batch steps model_width"]:
        """Gather from the positions' values what each step asks for."""
        gathered = self.attend(self.queries(states), keys, values, mask, is_causal=is_causal)
        return self.out_proj(gathered.transpose(1, 2).flatten(2))

    def queries(self, states: Float[Tensor, "batch positions model_width"]) -> PerHead:
        """Return what each step asks for."""
        return self._split_heads(self.q_proj(states))

    def keys_and_values(self, states: Float[Tensor, "batch positions model_width"]) -> KeysAndValues:
        """Return what each position offers to be found by, and what it then hands over."""
        return self._split_heads(self.k_proj(states)), self._split_heads(self.v_proj(states))

    def _split_heads(self, states: Float[Tensor, "batch positions model_width"]) -> PerHead:
        return states.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each added to what it reads (pre-norm).

    Without `config.cross_attention` the text is no part of a layer: what is told stands before the codes.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn = Attention(width, config.num_heads)
        if config.cross_attention:
            self.encoder_attn_layer_norm = nn.LayerNorm(width)
            self.encoder_attn = Attention(width, config.num_heads)
        self.cross_attention = config.cross_attention
        self.final_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.ffn_size, bias=False)
        self.fc2 = nn.Linear(config.ffn_size, width, bias=False)

    def forward(
        self,
        states: Float[Tensor, "batch steps model_width"],
        text_states: Float[Tensor, "batch text_tokens model_width"],
        text_mask: Bool[Tensor, "batch 1 1 text_tokens"],
        past: int = 0,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "batch steps model_width"]:
        """Return the states after this layer; `past` is the number of steps that the cache holds already."""
        states = states + self._attend_to_past(self.self_attn_layer_norm(states), past, cache)
        if self.cross_attention:
            states = states + self._attend_to_text(self.encoder_attn_layer_norm(states), text_states, text_mask, cache)
        return states + self.fc2(F.gelu(self.fc1(self.final_layer_norm(states))))

    def _attend_to_past(self, states: Tensor, past: int, cache: LayerCache | None) -> Tensor:
        keys, values = self.self_attn.keys_and_values(states)
        if cache is not None:
            keys, values = cache.append(past, keys, values)
        steps, mask = states.shape[1], None
        if past and steps > 1:  # is_causal would line the new steps up with the oldest positions
            mask = torch.ones(1, 1, steps, past + steps, dtype=torch.bool, device=states.device).tril(past)
        return self.self_attn(states, keys, values, mask, is_causal=not past)

    def _attend_to_text(
        self, states: Tensor, text_states: Tensor, text_mask: Tensor, cache: LayerCache | None
    ) -> Tensor:
        if cache is None:
            return self.encoder_attn(states, *self.encoder_attn.keys_and_values(text_states), text_mask)
        if cache.text is None:
            cache.text = self.encoder_attn.keys_and_values(text_states)
        return self.encoder_attn(states, *cache.text, text_mask)


def run_layers(
    layers: Sequence[DecoderLayer], states: Tensor, text_states: Tensor, text_mask: Tensor, past: int,
    caches: Sequence[LayerCache | None],
) -> Tensor:  # fmt: skip
    """Return `states` after all layers, one after the other, each with its own cache; shapes as in `DecoderLayer`."""
    for layer, cache in zip(layers, caches, strict=True):
        states = layer(states, text_states, text_mask, past, cache)
    return states


class MusicGenDecoder(nn.Module):
    """Scores the next code of every codebook, given the codes so far and the text.

    Raises ValueError where `hidden_size` is odd or cannot be split into `num_heads` heads.
    Source: audiocraft's `LMModel`, transformers' `MusicgenForCausalLM`.
    """

    run_layers = staticmethod(run_layers)  # room 14 compiles it

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        if width < 4 or width % 2 or width % config.num_heads:
            raise ValueError(
                f"hidden_size={width} must be even, at least 4 and a multiple of num_heads={config.num_heads}: "
                "positions take it in two halves, attention in one part a head."
            )
        self.config = config
        size, books = config.codebook_size, range(config.num_codebooks)  # the special token is read, never predicted
        self.embed_tokens = nn.ModuleList(nn.Embedding(size + 1, width) for _ in books)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.layer_norm = nn.LayerNorm(width)
        self.lm_heads = nn.ModuleList(nn.Linear(width, size, bias=False) for _ in books)
        self.reset_parameters()

    @property
    def dtype(self) -> torch.dtype:
        """The precision of what passes from layer to layer. A norm tells it: packed layers hold other numbers."""
        return self.layer_norm.weight.dtype

    @property
    def cache_dtype(self) -> torch.dtype:
        """The precision of keys and values: packed layers (room 14) may give less than they are added to."""
        return getattr(self.layers[0].self_attn.k_proj, "product_dtype", self.dtype)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.layer_norm.weight.device

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights, at scales from which training starts well.

        Positions are waves of amplitude 1 that no weight can shrink: embeddings of the usual 0.02 would drown under
        them and the model would see the time but not the codes. Linear layers keep the variance of what they read;
        those of each layer that write into the residual sum are smaller, so that the sum stays near 1 at any
        depth; so are the heads, so that training starts near the uniform distribution.
        """
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.7)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for layer in self.layers:
            writers = [layer.self_attn.out_proj, layer.fc2]
            if layer.cross_attention:
                writers.append(layer.encoder_attn.out_proj)
            for writer in writers:
                writer.weight.mul_((len(writers) * len(self.layers)) ** -0.5)
        for head in self.lm_heads:
            head.weight.mul_(0.5)

    def forward(
        self,
        codes: Int[Tensor, "batch codebooks steps"],
        condition: Condition,
        cache: DecoderCache | None = None,
    ) -> Float[Tensor, "batch codebooks steps codebook_size"]:
        """Return the scores (logits) of the code that follows each step, for every codebook.

        `codes` are interleaved already and may hold the special token. With a `cache`, `codes` are the new steps only.
        Raises ValueError on a wrong number of codebooks and on more steps than the cache holds.
        """
        states = self.hidden_states(codes, condition, cache)
        return torch.stack([head(states) for head in self.lm_heads], dim=1)

    def hidden_states(
        self,
        codes: Int[Tensor, "batch codebooks steps"],
        condition: Condition,
        cache: DecoderCache | None = None,
    ) -> Float[Tensor, "batch steps model_width"]:
        """Return what the heads read: `forward` without the heads."""
        codes = check_codes(codes)
        condition = condition.to(self.device, self.dtype)  # the text encoder may compute in another precision
        past = cache.steps if cache else 0
        self._check(codes, codes.shape[2] + condition.prefix_steps * (not past), cache)
        states = sum(embed(codes[:, k]) for k, embed in enumerate(self.embed_tokens))
        if condition.prefix is not None and not past:  # the codes stand behind it, their positions count on from it
            states = torch.cat([condition.prefix, states], dim=1)
        states = states + sinusoidal_positions(past, states.shape[1], states.shape[2], states.device).to(states.dtype)
        attended_text = condition.mask.bool()[:, None, None, :]  # transformers' way; audiocraft looks at padding too
        caches = cache.layers if cache else [None] * len(self.layers)
        states = self.run_layers(list(self.layers), states, condition.states, attended_text, past, caches)
        if cache is not None:
            cache.steps += states.shape[1]
        return self.layer_norm(states[:, -codes.shape[2] :])

    def _check(self, codes: Tensor, steps: int, cache: DecoderCache | None) -> None:
        if codes.shape[1] != len(self.embed_tokens):
            raise ValueError(f"The decoder has {len(self.embed_tokens)} codebooks but the codes have {codes.shape[1]}.")
        if cache is not None and cache.steps + steps > cache.max_steps:
            raise ValueError(
                f"The cache holds {cache.max_steps} steps, {cache.steps} of them used, and {steps} more do not fit: "
                "create DecoderCache with a larger max_steps."
            )
