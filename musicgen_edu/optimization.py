"""Room 14: the same layers, faster. Weights laid out as the processor reads them, in as many bits as the sound needs.

A step of generation reads every weight once and uses it for two rows only, those of guidance; so it can be no faster
than the memory hands the weights over. A rung says how they are held:

    fp32   32 bits: the same numbers, the same tokens
    bf16   16 bits, in oneDNN's blocked layout; linear layers take and give bfloat16
    int8    8 bits and one scale a row of weights (LLM.int8(), arXiv:2208.07339, 2.1 and 3.1, without its outliers)
    int4    4 bits, a scale and an offset for every 32 weights (group-wise, as in GPTQ, arXiv:2210.17323, section 4)

In the last three the residual sum, the norms and the softmax stay in float32. The kernels are PyTorch's own. Nothing is
implemented twice: `optimize` gives linear layers another way to multiply, and names, shapes and everything else stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from musicgen_edu.devices import has_bfloat16, mkl_is_fast, return_freed_memory
from musicgen_edu.steps import attend, check_compiler, multiply_packed, run_compiled

GROUP = 32  # weights that share a scale and an offset in int4
MANY = 64  # rows from which on it pays to widen int8's weights first, as when codes that are known are read
BLOCK = 256  # columns that are quantised at once
NOTHING = None, ()  # waits for a layer that reads the same states
SHRINKAGES = 5  # ranges that are tried for each group, from its whole spread down to 70 % of it


class Product:
    """The product with the weights of linear layers that read the same states, held as a rung says, as one matrix.

    One product of 3 × 1024 columns is faster than three of 1024. The layers ask one after the other with the very same
    tensor, so the first one's call computes for all of them; what the last one asked for is not kept.
    """

    dtype: ClassVar[torch.dtype] = torch.bfloat16  # of the states that come in and go out

    def __init__(self, weight: Float[Tensor, "columns width"], sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)
        self.held = self.hold(weight)
        self._waiting: tuple[Tensor | None, tuple[Tensor | None, ...]] = NOTHING

    def __call__(self, states: Float[Tensor, "*batch width"], part: int) -> Float[Tensor, "*batch part_width"]:
        """Return the product of one of the layers."""
        last, parts = self._waiting
        if last is not states or parts[part] is None:
            product = self.multiply(states.flatten(0, -2).to(self.dtype)).unflatten(0, states.shape[:-1])
            if len(self.sizes) == 1:
                return product
            parts = product.split(self.sizes, dim=-1)
        waiting = (*parts[:part], None, *parts[part + 1 :])
        self._waiting = NOTHING if all(each is None for each in waiting) else (states, waiting)
        return parts[part]

    def hold(self, weight: Float[Tensor, "columns width"]) -> tuple[Tensor, ...]:
        """Return the tensors that `multiply` reads."""
        raise NotImplementedError

    def multiply(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows columns"]:
        """Return states @ weightᵀ."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.held)

    def __deepcopy__(self, memo: dict) -> Product:
        return self  # nothing in it changes


class Blocked(Product):
    """oneDNN's layout: what lies side by side is what the processor multiplies at once."""

    dtype = torch.float32

    def hold(self, weight: Float[Tensor, "columns width"]) -> tuple[Tensor, ...]:
        """Return the weights in oneDNN's layout for two rows of states."""
        return (torch.ops.mkldnn._reorder_linear_weight(weight.to(self.dtype).contiguous(), 2),)

    def multiply(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows columns"]:
        """Return states @ weightᵀ, summed in float32."""
        if torch.compiler.is_compiling():
            return multiply_packed(states, *self.held)
        return torch.ops.mkldnn._linear_pointwise(states, *self.held, None, "none", [], "")

    def __reduce__(self):
        return type(self), (self.held[0].to_dense(), self.sizes)  # oneDNN's own tensors cannot be pickled


class Float32(Blocked):
    """The weights themselves: as they are where MKL multiplies fast, else in oneDNN's layout."""

    def hold(self, weight: Float[Tensor, "columns width"]) -> tuple[Tensor, ...]:
        """Return the weights in the layout that is read faster here."""
        return (weight.to(self.dtype).contiguous(),) if mkl_is_fast() else super().hold(weight)

    def multiply(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows columns"]:
        """Return states @ weightᵀ, summed in float32."""
        return super().multiply(states) if self.held[0].is_mkldnn else F.linear(states, *self.held)


class BFloat16(Blocked):
    """oneDNN's layout in half of the bytes: 8 bits of mantissa, summed in float32."""

    dtype = torch.bfloat16


class Int8(Product):
    """Whole numbers from −127 to 127 and a scale for each column of the product."""

    def hold(self, weight: Float[Tensor, "columns width"]) -> tuple[Tensor, ...]:
        """Return the whole numbers and the scales."""
        scale = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12)
        return (weight / scale[:, None]).round().to(torch.int8), scale.to(self.dtype)

    def multiply(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows columns"]:
        """Return states @ weightᵀ, summed in float32."""
        numbers, scale = self.held
        if len(states) >= MANY and has_bfloat16():  # the kernel below is for a few rows
            return F.linear(states, numbers.to(self.dtype)) * scale  # bfloat16 holds these numbers exactly
        return torch.ops.aten._weight_int8pack_mm(states, numbers, scale)


class Int4(Product):
    """Whole numbers from 0 to 15, with a scale and an offset for every 32 weights of a column."""

    def hold(self, weight: Float[Tensor, "columns width"]) -> tuple[Tensor, ...]:
        """Return the whole numbers, two a byte, and scales with offsets [groups, columns, 2]."""
        # The kernel's own blocks are of 64 columns or fewer. A few at once: what is tried for them stays in the caches.
        numbers, scales = zip(*(self._hold_block(block) for block in weight.split(BLOCK)), strict=True)
        return torch.cat(numbers), torch.cat(scales, dim=1)

    def _hold_block(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        numbers, scale, offset = quantize_to_4_bits(weight)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)
        # The kernel's own formula is (number − 8) · scale + zero.
        return packed, torch.stack([scale, offset + 8 * scale], dim=-1).transpose(0, 1).to(self.dtype)

    def multiply(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows columns"]:
        """Return states @ weightᵀ, summed in float32."""
        numbers, scales = self.held
        return torch.ops.aten._weight_int4pack_mm_for_cpu(states, numbers, GROUP, scales)


def quantize_to_4_bits(weight: Float[Tensor, "columns width"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return whole numbers 0 … 15 [columns, width], and scales and offsets [columns, groups].

    A weight is about number · scale + offset. The range of a group is its spread, shrunk towards its middle as long as
    that lowers the squared error: a weight far out is cut, and all others are told apart more finely.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))
    low, high = groups.aminmax(dim=-1)
    best = torch.full_like(low, torch.inf)
    scale, offset = torch.zeros_like(low), torch.zeros_like(low)
    for shrinkage in torch.linspace(1.0, 0.7, SHRINKAGES, dtype=torch.float32, device="cpu").tolist():
        width = ((high - low) * shrinkage / 15).clamp(min=1e-12)
        start = (high + low) / 2 - 7.5 * width
        error = (_to_numbers(groups, width, start) * width[..., None] + start[..., None] - groups).square().sum(dim=-1)
        better = error < best
        pairs = (error, best), (width, scale), (start, offset)
        best, scale, offset = (torch.where(better, new, old) for new, old in pairs)
    return _to_numbers(groups, scale, offset).flatten(1).to(torch.int32), scale, offset


def _to_numbers(groups: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    return ((groups - offset[..., None]) / scale[..., None]).round().clamp(0, 15)


PRODUCTS: dict[str, type[Product]] = {"fp32": Float32, "bf16": BFloat16, "int8": Int8, "int4": Int4}


class PackedLinear(nn.Linear):
    """A linear layer that multiplies with packed weights. Its parameter keeps its name and, if wanted, its values.

    For inference only: raises RuntimeError where gradients would be needed, and where the weight has changed since.
    """

    product: Product
    part: int
    version: int

    @property
    def product_dtype(self) -> torch.dtype:
        """The precision of what comes out."""
        return self.product.dtype

    def forward(self, states: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch columns"]:
        """Return states @ weightᵀ in the product's precision."""
        if torch.compiler.is_compiling():  # it was checked at the clip's first step, which is not compiled
            return self.product(states, self.part)
        if torch.is_grad_enabled() and (self.weight.requires_grad or states.requires_grad):
            raise RuntimeError("Packed weights give no gradients: use torch.no_grad(), or optimize(None) to undo it.")
        if _version(self.weight) != self.version:
            raise RuntimeError("The weights have changed since they were packed: call optimize() again.")
        return self.product(states, self.part)

    def extra_repr(self) -> str:
        """What printing the model shows."""
        return f"{super().extra_repr()}, packed as {type(self.product).__name__}"

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.version = _version(self.weight)  # a copy counts its changes anew


def optimize(decoder: nn.Module, rung: str | None, keep_weights: bool = True, compiled: bool = False) -> None:
    """Let a decoder's linear layers multiply with weights packed for `rung`; None goes back to the weights themselves.

    For inference on the CPU. Parameters keep their names and, with `keep_weights`, their values. Without it each
    layer's weights are given up as soon as they are packed: the parameters stay as shapes without values, and there is
    no way back. With `compiled`, the steps of generation are compiled too (`steps.py`), when the first is taken.
    Raises ValueError for an unknown rung, where these weights or this processor do not allow it, where weights that
    were given up would be needed, and where nothing can be compiled.
    """
    if rung is not None and rung not in PRODUCTS:
        raise ValueError(f"There is no rung {rung!r}: choose one of {', '.join(PRODUCTS)}, or None.")
    if compiled:
        check_compiler(rung)
    groups = _readers_of_the_same_states(decoder)
    if any(layer.weight.is_meta for layers in groups for layer in layers):
        raise ValueError("The decoder's weights were given up: load the model again.")
    _unpack(decoder)
    if rung is None:
        return
    for layers in groups:
        for layer in layers:
            _check(layer, rung)
    for layers in groups:
        _pack(layers, PRODUCTS[rung], keep_weights)
        if not keep_weights:
            return_freed_memory()
    for attention in _attentions(decoder).values():
        attention.attend = attend
    if compiled:
        decoder.run_layers = partial(run_compiled, type(decoder).run_layers)


def _attentions(decoder: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in decoder.named_modules() if hasattr(module, "q_proj")}


def _readers_of_the_same_states(decoder: nn.Module) -> list[list[nn.Linear]]:
    """All linear layers of a decoder or of a part of one; those that always read the same states stand together."""
    groups = [list(getattr(decoder, "lm_heads", ()))]
    for name, attention in _attentions(decoder).items():
        queries, offers = [attention.q_proj], [attention.k_proj, attention.v_proj]
        # In cross-attention the queries are the music's, keys and values the text's.
        groups += [queries + offers] if name.endswith("self_attn") else [queries, offers]
    grouped = {layer for layers in groups for layer in layers}
    others = (module for module in decoder.modules() if isinstance(module, nn.Linear))
    return [group for group in groups if group] + [[layer] for layer in others if layer not in grouped]


def _pack(layers: list[nn.Linear], kind: type[Product], keep_weights: bool) -> None:
    weight = torch.cat([layer.weight.detach() for layer in layers])
    product = kind(weight, [layer.out_features for layer in layers])
    for part, layer in enumerate(layers):
        if not keep_weights:
            layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=layer.weight.requires_grad)
        layer.__class__ = PackedLinear
        layer.product, layer.part, layer.version = product, part, _version(layer.weight)


def _unpack(decoder: nn.Module) -> None:
    for layer in decoder.modules():
        if isinstance(layer, PackedLinear):
            del layer.product, layer.part, layer.version
            layer.__class__ = nn.Linear
    for attention in _attentions(decoder).values():
        attention.__dict__.pop("attend", None)
    decoder.__dict__.pop("run_layers", None)


def _check(layer: nn.Linear, rung: str) -> None:
    """Raise ValueError, in words for the user, where the kernels would not take the layer."""
    if type(layer) is not nn.Linear or layer.bias is not None:
        raise ValueError(f"Only plain linear layers without bias can be packed, not {layer}.")
    if layer.weight.device.type != "cpu":
        raise ValueError(f"Weights are packed for the CPU, not for {layer.weight.device}: move the model to it first.")
    if rung in ("fp32", "bf16") and not torch.backends.mkldnn.is_available():
        raise ValueError(f"This PyTorch comes without oneDNN, which multiplies in {rung}: choose int8 or int4.")
    if rung == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise ValueError("This processor cannot multiply in bf16: choose fp32, int8 or int4.")
    if rung == "int8" and layer.in_features % 16:
        raise ValueError(f"int8 reads 16 weights at once, and a row of {layer} cannot be split so: choose fp32.")
    if rung == "int4" and (layer.in_features % GROUP or layer.out_features % 16):
        raise ValueError(f"int4 takes {GROUP} weights of 16 rows at once; {layer} cannot be split so: choose fp32.")


def _version(weight: Tensor) -> int:
    """How often the tensor was changed in place."""
    return 0 if weight.is_inference() else weight._version
