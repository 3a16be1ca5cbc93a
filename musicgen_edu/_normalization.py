"""By which rules a prompt is read before it is cut into pieces: what separates words, and what counts as nothing.

The rules go into the tokenizer's own file (`tokenizer.py`), so that every tool which opens it follows them.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import sentencepiece

HEARD_MARKS = ",.:!"  # the captions' own; any other mark is read as a blank, since no model was ever taught one


@cache
def separating_normalizer() -> sentencepiece.SentencePieceNormalizer:
    """sentencepiece's rules "nmt_nfkc_cf", in which a blank follows each mark, or replaces it.

    What shows nothing, such as a soft hyphen or what joins emoji, is left out.
    """
    sentencepiece.set_min_log_level(2)  # or it tells on stderr of every map that it builds
    rules = dict(sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc_cf").decompile())
    every = list(map(chr, range(1, sys.maxunicode + 1)))
    marks = {letter for letter in every if _is_mark(letter, rules.get(letter, letter))}
    spaced = {mark: f"{mark} " if mark in HEARD_MARKS else " " for mark in marks}
    rules |= {letter: "" for letter in every if letter not in rules and _shows_nothing(letter)}
    separating = {source: "".join(spaced.get(letter, letter) for letter in rules[source]) for source in rules}
    separating |= {mark: spaced[mark] for mark in marks if not separating.get(mark, "").endswith(" ")}
    return sentencepiece.SentencePieceNormalizer(norm_map=list(separating.items()))


def _is_mark(letter: str, read_as: str) -> bool:
    """Whether it separates words: punctuation, a symbol or an emoji, but no letter in a circle ("Ⓐ" is read as "a")."""
    symbol = unicodedata.category(letter)[0] == "S" and not (len(read_as) == 1 and read_as.isalnum())
    return symbol or unicodedata.category(letter)[0] == "P" or unicodedata.category(letter) == "Me" or letter == "\v"


def _shows_nothing(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf" or unicodedata.name(letter, "").startswith("VARIATION SELECTOR")
