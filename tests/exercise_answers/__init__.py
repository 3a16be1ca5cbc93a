"""Answers that students write to the exercises, room by room, with what the check must say to each.

A room's file, `room_04.py`, holds a list WRONG of plausible slips, at least four an exercise, and may hold a list RIGHT
of other ways that the check must accept. `tests/test_exercise_checks.py` tries them all.
"""

from __future__ import annotations

from typing import NamedTuple


class Answer(NamedTuple):
    """One answer to an exercise: what is special about it, a few words of the check's message, and its code.

    The code is a whole cell, or `{part of the solution: what stands there instead}`. A right answer says "Right."
    """

    exercise: int
    slip: str
    says: str
    code: str | dict[str, str]
