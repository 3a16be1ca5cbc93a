"""Prompts as the model gets them: pieces, ids, log probabilities and mask, with the words that it never saw marked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from musicgen_edu.inspection.controls import Shown, View, text_box
from musicgen_edu.inspection.pictures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Picture,
    problem,
    status,
    svg_drawing,
    svg_text,
)
from musicgen_edu.tokenizer import PLAIN_WORDS, WORD_MARK, Tokenizer

KNOWN, SPELLED, UNKNOWN, END, PADDING = "known word", "word never seen", "unknown", "end", "padding"
# Each kind's line, its paper, and the dashes of its line: colour never stands alone.
LOOKS = {
    KNOWN: (BLUE, "#e3f0f8", ""),
    SPELLED: (ORANGE, "#fdf2dc", "6 3"),
    UNKNOWN: (RED, "#fae6d9", "2 3"),
    END: (GREEN, "#def3ec", ""),
    PADDING: (GREY, "#eeeeee", "1 4"),
}
LABELS = ("piece", "id", "log p", "mask")
WIDTH, LEFT, LINE, GAP, CHARACTER = 640, 54, 22, 5, 8  # pixels


@dataclass(frozen=True)
class Token:
    """One cell of the batch that the text encoder gets."""

    piece: str
    id: int
    score: float | None  # log probability; the end, the unknown and padding have none
    mask: bool
    kind: str  # one of the five in LOOKS


def inspect_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[Token]]:
    """Return the tokens of every prompt, padded on the right to the longest, as `tokenizer(texts)` gives their ids.

    A word is marked as never seen if it is not one piece; see `Tokenizer.unknown_words`. Raises what the tokenizer
    raises: ValueError for a blank prompt or an empty list.
    """
    _, mask = tokenizer(list(texts))
    rows = [_tokens(tokenizer, text) for text in texts]
    padding = Token("<pad>", tokenizer.pad_id, None, False, PADDING)
    return [row + [padding] * int((~seen).sum()) for row, seen in zip(rows, mask, strict=True)]


def draw_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> Picture:
    """Draw every prompt as a row of boxes, one a piece, with its id, its log probability and its mask below."""
    rows, drawn, top = inspect_tokens(tokenizer, texts), "", 6
    for number, row in enumerate(rows, start=1):
        if len(rows) > 1:
            drawn += svg_text(4, top + 14, f"prompt {number}", font_weight="bold")
            top += LINE
        for line in _lines(row):
            drawn += _line(line, top)
            top += 4 * LINE + 2 * GAP
    drawn += _legend({token.kind for row in rows for token in row}, top)
    top += LINE
    return svg_drawing(WIDTH, top, drawn, _describe(rows), size=13, family="monospace")


def explore_tokens(tokenizer: Tokenizer, prompt: str = "peaceful piano melody", beside: str = "") -> View:
    """Type a prompt, and one beside it if you like, and see their pieces, ids, log probabilities and masks."""
    first = text_box("Prompt", prompt, "The prompt that is cut into pieces", continuous=True)
    second = text_box(
        "Beside it", beside, "A second prompt in the same batch, or nothing: the shorter one is padded", continuous=True
    )
    shown = Shown()

    def show(change: object = None) -> None:
        texts = [first.value] + ([second.value] if second.value.strip() else [])
        shown.value = _html(lambda: draw_tokens(tokenizer, texts))

    for box in (first, second):
        box.observe(show, names="value")
    show()
    return View([first, second, shown], shown)


def _tokens(tokenizer: Tokenizer, text: str) -> list[Token]:
    ids, pieces, scores = tokenizer.encode(text), tokenizer.pieces(text), tokenizer.scores(text)
    # A piece with the word mark begins a word. Each piece gets the number of its word.
    words = list(accumulate(piece.startswith(WORD_MARK) for piece in pieces))
    kinds = {word: _kind(tokenizer, [i for i, its in zip(ids, words, strict=True) if its == word]) for word in words}
    tokens = []
    for piece, index, score, word in zip(pieces, ids, scores, words, strict=True):
        kind = {tokenizer.eos_id: END, tokenizer.unk_id: UNKNOWN}.get(index, kinds[word])
        if kind == SPELLED and piece != WORD_MARK and not any(map(str.isalnum, piece)):
            kind = KNOWN  # the comma behind a word that was never seen
        tokens.append(Token(piece, index, None if kind in (END, UNKNOWN) else score, True, kind))
    return tokens


def _kind(tokenizer: Tokenizer, ids: list[int]) -> str:
    word = tokenizer.decode(ids)
    # No one is warned of "would", which describes no music; if no caption held it, it is spelled all the same.
    plain = word in PLAIN_WORDS and len(ids) > 1
    return SPELLED if plain or tokenizer.unk_id in ids or tokenizer.unknown_words(word) else KNOWN


def _cells(token: Token) -> tuple[str, str, str, str]:
    score = "–" if token.score is None else f"{token.score:.2f}".replace("-", "−")
    return token.piece, str(token.id), score, str(int(token.mask))


def _width(token: Token) -> int:
    return CHARACTER * max(map(len, _cells(token))) + 8


def _lines(row: list[Token]) -> list[list[Token]]:
    """Break a row where the picture ends."""
    lines, right = [[]], LEFT
    for token in row:
        if right + _width(token) > WIDTH and lines[-1]:
            lines, right = [*lines, []], LEFT
        lines[-1].append(token)
        right += _width(token) + GAP
    return lines


def _line(tokens: list[Token], top: int) -> str:
    drawn = "".join(svg_text(4, top + 16 + LINE * place, label, "#444444") for place, label in enumerate(LABELS))
    left = LEFT
    for token in tokens:
        drawn += _box(left, top, _width(token), token.kind)
        middle = left + _width(token) // 2
        for place, cell in enumerate(_cells(token)):
            drawn += svg_text(middle, top + 16 + LINE * place, cell, text_anchor="middle")
        left += _width(token) + GAP
    return drawn


def _box(left: int, top: int, width: int, kind: str) -> str:
    line, paper, dashes = LOOKS[kind]
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="{LINE}" rx="4" fill="{paper}" stroke="{line}" '
        f'stroke-width="2" stroke-dasharray="{dashes or "none"}"/>'
    )


def _legend(kinds: set[str], top: int) -> str:
    drawn, left = "", LEFT
    for kind in (kind for kind in LOOKS if kind in kinds):
        drawn += f'<g transform="translate({left} {top}) scale(0.6)">{_box(0, 2, 30, kind)}</g>'
        drawn += svg_text(left + 24, top + 13, kind)
        left += 24 + CHARACTER * len(kind) + 14
    return drawn


def _describe(rows: list[list[Token]]) -> str:
    def say(token: Token) -> str:
        piece, index, _, _ = _cells(token)
        mark = f" ({token.kind})" if token.kind in (SPELLED, UNKNOWN) else ""
        return f"{piece} {index}{mark}"

    said = []
    for number, row in enumerate(rows, start=1):
        cells = [say(token) for token in row if token.mask]
        padding = [f"{len(row) - len(cells)} × padding"] if len(cells) < len(row) else []
        said.append((f"prompt {number}: " if len(rows) > 1 else "") + ", ".join(cells + padding))
    return f"Pieces and their ids in boxes, with log probability and mask below each: {'; '.join(said)}."


def _html(draw: Callable[[], Picture]) -> str:
    """The picture as HTML, or one red sentence; what the tokenizer warns of stands above the picture."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            shown = draw()._repr_html_()
        except ValueError as error:
            shown = problem(error)
    return "".join(status(warning.message) for warning in caught) + shown
