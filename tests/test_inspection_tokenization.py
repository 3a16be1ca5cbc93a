"""What the inspection says of each piece is what the tokenizer gives, and the view follows the typing."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest

from musicgen_edu.inspection import tokenization
from musicgen_edu.inspection.controls import Shown
from musicgen_edu.inspection.tokenization import draw_tokens, explore_tokens, inspect_tokens
from musicgen_edu.tokenizer import PLAIN_WORDS


def kinds(tokenizer, text):
    return [token.kind for token in inspect_tokens(tokenizer, [text])[0]]


def decode(html):
    return base64.b64decode(re.search(r"base64,([^\"]+)", html).group(1)).decode()


@pytest.fixture
def svg(tokenizer):
    def drawn(*texts):
        return draw_tokens(tokenizer, texts).content.decode()

    return drawn


def test_tokens_are_the_tokenizers(tokenizer):
    texts = ["a happy piano melody, fast, with drums", "sad strings", "a lonely ΩΨ zither"]
    rows = inspect_tokens(tokenizer, texts)
    ids, mask = tokenizer(texts)
    assert [[token.id for token in row] for row in rows] == ids.tolist()
    assert [[token.mask for token in row] for row in rows] == mask.tolist()
    for row, text in zip(rows, texts, strict=True):
        seen = [token for token in row if token.mask]
        assert [token.piece for token in seen] == tokenizer.pieces(text)
        assert [token.score or 0.0 for token in seen] == tokenizer.scores(text)


def test_scores_are_log_probabilities_of_the_best_cut(tokenizer):
    scores = tokenizer.scores("happy piano, fast")
    assert len(scores) == len(tokenizer.encode("happy piano, fast"))
    assert scores[-1] == 0 and all(score < 0 for score in scores[:-1])
    assert min(tokenizer.scores("zither")[:-1]) < min(scores)  # a letter that no caption holds is the rarest


def test_words_are_marked(tokenizer):
    known, spelled, unknown, end = "known word", "word never seen", "unknown", "end"
    assert kinds(tokenizer, "Happy piano, fast.") == [known] * 5 + [end]
    assert kinds(tokenizer, "sad zither") == [known] + [spelled] * 7 + [end]  # the mark, then six letters
    assert kinds(tokenizer, "pianos") == [spelled, spelled, end]
    assert kinds(tokenizer, "piano Ω") == [known, spelled, unknown, end]
    assert kinds(tokenizer, "zoo, piano") == [spelled] * 4 + [known, known, end]
    assert kinds(tokenizer, "piano -") == [known, end]  # a mark that no caption held is a blank


@pytest.mark.parametrize(
    "text", ["a sad lute and a happy lute", "happy pianos!", "don't", "hip-hop beat", "Fast tuba."]
)
def test_marks_agree_with_unknown_words(tokenizer, text):
    row = inspect_tokens(tokenizer, [text])[0]
    marked = "".join(token.piece for token in row if token.kind == "word never seen").split("▁")
    unknown = [re.sub(r"\W", "", word) for word in tokenizer.unknown_words(text)]  # punctuation is never marked
    assert [word for word in dict.fromkeys(filter(None, marked)) if word not in PLAIN_WORDS] == unknown


def test_words_of_grammar_are_marked_though_no_one_is_warned_of_them(tokenizer):
    assert kinds(tokenizer, "would")[:-1] == ["word never seen"] * 6 and not tokenizer.unknown_words("would")


def test_the_shorter_prompt_is_padded(tokenizer):
    long, short = inspect_tokens(tokenizer, ["happy piano melody", "strings"])
    assert [token.kind for token in short] == ["known word", "end", "padding", "padding"]
    assert [token.mask for token in short] == [True, True, False, False]
    assert short[-1].id == tokenizer.pad_id and short[-1].score is None
    assert all(token.mask for token in long)
    assert "2 × padding" in draw_tokens(tokenizer, ["happy piano melody", "strings"]).alt


def test_picture_holds_every_cell_and_says_so(tokenizer, svg):
    texts = "happy piano", "sad zither Ω & <drums>"
    root = ElementTree.fromstring(svg(*texts))
    written = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for row in inspect_tokens(tokenizer, texts):
        for token in row:
            assert token.piece in written and str(token.id) in written
    assert {"prompt 1", "prompt 2", "known word", "word never seen", "unknown", "end", "padding"} <= set(written)
    assert "▁happy" in draw_tokens(tokenizer, texts).alt and "(word never seen)" in draw_tokens(tokenizer, texts).alt


def test_a_long_prompt_is_broken_into_lines_inside_the_picture(tokenizer, svg):
    root = ElementTree.fromstring(svg(" ".join(["happy piano melody with a flute"] * 8)))
    boxes = [box for box in root.findall("{http://www.w3.org/2000/svg}rect") if box.get("rx")]
    assert max(float(box.get("x")) + float(box.get("width")) for box in boxes) <= tokenization.WIDTH
    assert len({box.get("y") for box in boxes}) > 4
    assert float(root.get("height")) > max(float(box.get("y")) for box in boxes)


def test_view_follows_the_typing(tokenizer):
    view = explore_tokens(tokenizer, "happy piano")
    first, second, shown = view.children
    assert isinstance(shown, Shown) and "▁happy" in decode(shown.value)
    first.value = "sad zither"
    assert "▁sad" in decode(shown.value) and "word never seen" in decode(shown.value)
    assert "prompt 2" not in decode(shown.value)
    second.value = "a happy piano melody, fast, with drums"
    assert "prompt 2" in decode(shown.value)


def test_view_has_labels_and_alt_text(tokenizer):
    first, second, shown = explore_tokens(tokenizer).children
    assert all(box.description and box.tooltip for box in (first, second))
    assert re.search(r'alt="Pieces and their ids[^"]+"', shown.value)


def test_view_shows_a_blank_prompt_as_one_red_sentence(tokenizer):
    first, _, shown = explore_tokens(tokenizer).children
    first.value = "   "
    assert "<img" not in shown.value and 'role="alert"' in shown.value and "The prompt is empty" in shown.value
    first.value = "piano"
    assert "<img" in shown.value


def test_view_says_that_a_prompt_was_cut(tokenizer, recwarn):
    first, _, shown = explore_tokens(tokenizer).children
    first.value = "piano " * 300
    assert "only its first 255 pieces are used" in shown.value and "<img" in shown.value
    assert not recwarn.list
