"""Room 02: token ids become vectors that know their neighbours.

A T5 encoder (Raffel et al. 2020, arXiv:1910.10683). transformers' `T5EncoderModel` does the work, since T5 is not this
course's lesson. Released MusicGens use a frozen t5-base of width 768; the shipped model trains its own of width 512,
first on captions alone and then together with the decoder.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from musicgen_edu.conditioning import TextMask
from musicgen_edu.config import TextEncoderConfig
from musicgen_edu.devices import own_precision


class TextEncoder(nn.Module):
    """Turns token ids into states of width `hidden_size`, one a token.

    The weights are T5's own initialisation until a checkpoint is loaded. Its last layer normalises, so that the states
    have a root mean square of 1 from the start: the scale that the decoder's projection expects.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = T5EncoderModel(t5_config(config))

    @property
    def hidden_size(self) -> int:
        """The width of the states that the encoder gives (text_width)."""
        return self.config.hidden_size

    def forward(
        self,
        ids: Int[Tensor, "batch text_tokens"],
        mask: TextMask,
    ) -> Float[Tensor, "batch text_tokens text_width"]:
        """Return the states; no token looks at the padding, where `mask` is 0.

        Raises ValueError for an id that is no piece of the vocabulary.
        """
        last = self.config.vocab_size - 1
        if not ids.is_meta and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= last:
            raise ValueError(f"Ids lie in 0…{last}, not in {ids.min()}…{ids.max()}.")
        with own_precision(ids.device):
            return self.model(input_ids=ids.long(), attention_mask=mask).last_hidden_state

    def resize(self, vocab_size: int) -> None:
        """Embed so many pieces: the last ones go, or new ones come, as the mean of those that were there.

        Source: Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models".
        """
        known = self.config.vocab_size
        table = self.model.resize_token_embeddings(vocab_size, mean_resizing=False).weight
        with torch.no_grad():
            table[known:] = table[:known].mean(dim=0)
        self.config = replace(self.config, vocab_size=vocab_size)


def t5_config(config: TextEncoderConfig) -> T5Config:
    """Return the same sizes in transformers' words, without dropout: captions are varied by rewording instead."""
    return T5Config(
        vocab_size=config.vocab_size,
        d_model=config.hidden_size,
        d_kv=config.head_size,
        d_ff=config.ffn_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        feed_forward_proj=config.feed_forward,
        relative_attention_num_buckets=config.relative_attention_num_buckets,
        relative_attention_max_distance=config.relative_attention_max_distance,
        layer_norm_epsilon=config.layer_norm_epsilon,
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
    )
