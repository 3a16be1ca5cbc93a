"""What the decoder is told: the null condition, both branches of guidance, and what stands before the codes."""

from __future__ import annotations

import pytest
import torch

from musicgen_edu.conditioning import Condition


def make_condition() -> Condition:
    return Condition(torch.randn(2, 5, 8), torch.ones(2, 5).bool(), torch.randn(2, 3, 8), torch.randn(2, 3, 8))


def test_the_null_condition_says_nothing():
    condition = make_condition()
    null = condition.null()
    assert not null.states.any() and not null.mask.any() and null.mask.dtype == torch.bool
    assert null.states.shape == condition.states.shape and torch.equal(null.prefix, condition.null_prefix)
    alone = Condition(condition.states, condition.mask)
    assert alone.null().prefix is None and (alone.prefix_steps, condition.prefix_steps) == (0, 3)


def test_guidance_has_both_branches_the_conditional_one_first():
    condition = make_condition()
    both, null = condition.with_null(), condition.null()
    assert len(both) == 4
    for name in ("states", "mask", "prefix"):
        assert torch.equal(getattr(both, name), torch.cat([getattr(condition, name), getattr(null, name)]))
    assert Condition(condition.states, condition.mask).with_null().prefix is None


def test_the_mask_keeps_its_type():
    moved = make_condition().to("meta", torch.bfloat16)
    assert {moved.states.dtype, moved.prefix.dtype, moved.null_prefix.dtype} == {torch.bfloat16}
    assert moved.mask.dtype == torch.bool and moved.mask.device.type == "meta"


def test_a_prefix_without_its_null_is_refused():
    with pytest.raises(ValueError, match="A prefix needs its null_prefix"):
        Condition(torch.zeros(1, 2, 8), torch.ones(1, 2).bool(), torch.zeros(1, 3, 8))
