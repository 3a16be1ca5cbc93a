"""Room 14, second half: what stands between the products of a step, faster.

With few bits a step spends half of its time between its products: norms, sums, casts, attention to a short past, each
of them a call of its own. `attend` leaves the past as it lies. And `torch.compile` (Ansel et al. 2024,
doi:10.1145/3620665.3640366) reads the very same layers and writes C++ for all that lies between two products, which
stay PyTorch's own. Only steps with a past are compiled: a clip's first step, and codes that are known already, are read
as ever.

What the compiler makes is kept in TORCHINDUCTOR_CACHE_DIR, by default `torchinductor_<user>` in the folder for
temporary files, where other processes find it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from musicgen_edu.devices import mkl_is_fast

AT_ONCE = 4  # layers in one call: more save time at each step, and take longer to compile
FORMS = 64  # a step is compiled anew for another rung, another number of threads, for one row instead of several …
# What may change from call to call without that: rows, words, reserved steps and how many are written.
CHANGING = ",".join(
    (
        r"L\['states'\]:0", r"L\['text_mask'\]:0", r"L\['text_mask'\]:3", r"L\['past'\]",
        *(rf"L\['caches'\]\[\d+\]\.{name}:{axis}" for name in ("(keys|values)", r"text\[\d\]") for axis in (0, 2)),
    )
)  # fmt: skip

torch.library.define("musicgen_edu::multiply_packed", "(Tensor states, Tensor weight) -> Tensor")
multiply_packed = torch.ops.musicgen_edu.multiply_packed  # the compiler knows oneDNN's for constant weights only


@torch.library.impl("musicgen_edu::multiply_packed", "CompositeExplicitAutograd")
def _multiply_packed(states: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, None, "none", [], "")


@torch.library.register_fake("musicgen_edu::multiply_packed")
def _shape_of_product(states: Tensor, weight: Tensor) -> Tensor:
    return states.new_empty(states.shape[0], weight.shape[0])


def check_compiler(rung: str | None) -> None:
    """Raise ValueError, in words for the user, where steps on this rung cannot be compiled."""
    if rung is None:
        raise ValueError("Only packed layers are compiled: choose a rung for them.")
    if not hasattr(getattr(torch.compiler, "config", None), "dynamic_sources"):
        raise ValueError(f"Compiling needs PyTorch 2.7 or a later one, not {torch.__version__}: leave `compiled` out.")
    compiler = os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
    if shutil.which(compiler) is None:
        raise ValueError(
            f"Compiling needs a C++ compiler, and there is no {compiler!r} on this machine: install one (on Debian and "
            "Ubuntu: sudo apt install g++), name yours in CXX, or leave `compiled` out."
        )


def run_compiled(
    run_layers: Callable[..., Tensor], layers: Sequence[nn.Module], states: Tensor, text_states: Tensor,
    text_mask: Tensor, past: int, caches: Sequence,
) -> Tensor:  # fmt: skip
    """Do what the decoder's `run_layers` does, a step compiled; raises RuntimeError where the compiler fails."""
    reads_text = layers[0].cross_attention
    is_step = past and states.shape[1] == 1 and not torch.is_grad_enabled() and caches[0] is not None
    if not is_step or (reads_text and caches[0].text is None):
        return run_layers(layers, states, text_states, text_mask, past, caches)
    from torch._dynamo import config
    from torch._dynamo.exc import TorchDynamoException

    run = _compile(run_layers)
    with torch.compiler.config.patch(dynamic_sources=CHANGING), config.patch(recompile_limit=FORMS):
        for start in range(0, len(layers), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            try:
                states = run(layers[some], states, states, text_mask, past, caches[some])
            except TorchDynamoException as error:
                raise RuntimeError(
                    "The step could not be compiled on this machine: call optimize() again without `compiled`. "
                    f"The compiler says: {str(error).strip().splitlines()[0]}"
                ) from error
    return states


@cache
def _compile(run_layers: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # oneDNN's tensors have no strides that could be asserted.
    return torch.compile(run_layers, fullgraph=True, options={"size_asserts": False})


def attend(
    queries: Float[Tensor, "batch heads steps head_size"],
    keys: Float[Tensor, "batch heads positions head_size"],
    values: Float[Tensor, "batch heads positions head_size"],
    mask: Bool[Tensor, "#batch 1 #steps positions"] | None = None,
    is_causal: bool = False,
) -> Float[Tensor, "batch heads steps head_size"]:
    """`F.scaled_dot_product_attention`, which reads keys and values as they lie in the cache.

    bfloat16 is widened first where it would be multiplied slowly, although that copies the whole past.
    """
    if torch.compiler.is_compiling():
        return _attend_one_step(queries, keys, values, mask)
    if keys.dtype == torch.bfloat16 and not mkl_is_fast():
        queries, keys, values = queries.float(), keys.float(), values.float()
    return F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=is_causal)


def _attend_one_step(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention as in `F.scaled_dot_product_attention`, for one step, as sums that are compiled to one loop.

    Written as products of matrices, keys and values would be widened in memory first.
    """
    scores = (keys.float() * queries.float()).sum(dim=-1)[:, :, None] * queries.shape[-1] ** -0.5
    if mask is None:
        return (scores.softmax(dim=-1).mT * values.float()).sum(dim=2, keepdim=True)
    weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).nan_to_num(0.0)  # 0 where nothing may be looked at
    return (weights.mT * values.float()).sum(dim=2, keepdim=True)
