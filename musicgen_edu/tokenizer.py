"""Room 01: a prompt becomes a row of numbers.

A unigram model (Kudo 2018, arXiv:1804.10959) made and run by `sentencepiece`: of all ways to cut the text into pieces
of its vocabulary, the most probable one counts. T5's own tokenizer is of this kind. The shipped one is small: each word
of the training captions is one piece, and any other Latin word falls apart into letters. Before the cut the text is
normalised, by rules that lie in the model's own file, so that every tool which opens it follows them: case is folded,
and punctuation separates words.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path

import sentencepiece
import torch
from jaxtyping import Bool, Int
from sentencepiece.sentencepiece_model_pb2 import ModelProto, NormalizerSpec
from torch import Tensor
from transformers import T5Tokenizer

from musicgen_edu._checks import check_number, check_path
from musicgen_edu._normalization import separating_normalizer
from musicgen_edu.files import one_line, write_whole

MAX_PIECES = 256  # a longer prompt is cut
SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 64, 1_000_000  # the first is what single letters and marks need
WORD_VOCABULARY = 8_000  # a vocabulary smaller than this has whole words as pieces, and can tell which it lacks
MAX_CHARACTERS = 100_000  # of an enormous prompt no more than this is looked at
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?-'"  # pieces even where no caption holds them
WORD_MARK = "▁"  # sentencepiece writes a blank as this character, also before the first word
# Words of requests and of grammar: whether a model knows them or not, they describe no music.
PLAIN_WORDS = frozenset(
    """a about again all also am an and any are as at be been but by can compose could create d did do does don down
    for from generate get give had has have he hear her here him his how i if in is it its just kindly let like
    listen ll love m made make maybe me might more music must my need no not now of off on one only or our out over
    perhaps piece play played playing plays please re really s shall she should so some something sound sounds such
    t thanks that the their them then there these they thing this those through to too track tune until up us use
    using ve very want was we were what when where which who will wish with would write you your""".split()
)


class UnknownWordsWarning(UserWarning):
    """A prompt holds words that no caption held when the model was trained."""


class Tokenizer:
    """Turns prompts into piece ids and back. Ids 0, 1 and 2 are padding, end and unknown, as in T5.

    `model_file` is a sentencepiece model, or its content as bytes. Raises TypeError for anything else,
    FileNotFoundError where there is no such file, ValueError where it is no sentencepiece model of T5's kind.
    """

    pad_id, eos_id, unk_id = 0, 1, 2

    def __init__(self, model_file: str | os.PathLike | bytes) -> None:
        content = model_file if isinstance(model_file, bytes) else _read(model_file)
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise ValueError("The tokenizer's file is not a sentencepiece model, or it is damaged.") from error
        specials = self._model.pad_id(), self._model.eos_id(), self._model.unk_id()
        if specials != (self.pad_id, self.eos_id, self.unk_id):
            raise ValueError("The tokenizer is not of T5's kind: pieces 0, 1 and 2 must be padding, end and unknown.")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> Tokenizer:
        """Read a checkpoint folder's `spiece.model` or, where transformers wrote none, its `tokenizer.json`."""
        folder = check_path(folder)
        if (folder / "spiece.model").is_file():
            return cls(folder / "spiece.model")
        if (folder / "tokenizer.json").is_file():
            return cls(_read_tokenizer_json(folder / "tokenizer.json"))
        raise FileNotFoundError(f"{one_line(folder)} holds no tokenizer, neither spiece.model nor tokenizer.json.")

    @property
    def vocab_size(self) -> int:
        """The number of pieces."""
        return self._model.vocab_size()

    def __call__(
        self, texts: list[str] | tuple[str, ...]
    ) -> tuple[Int[Tensor, "batch text_tokens"], Bool[Tensor, "batch text_tokens"]]:
        """Encode several prompts, padded on the right to the longest; the mask is True where there is text.

        Raises TypeError and ValueError like `encode`, and ValueError on an empty list.
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise TypeError(f"The tokenizer takes a list of prompts, not {type(texts).__name__}.")
        if not texts:
            raise ValueError("The list of prompts is empty: give at least one.")
        rows = [torch.tensor(self.encode(text), dtype=torch.long, device="cpu") for text in texts]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        return ids, ids != self.pad_id

    def encode(self, text: str) -> list[int]:
        """Return the ids of the text's pieces, the end piece last.

        Raises TypeError where the prompt is not a string, ValueError where it is blank. Warns (UserWarning) where it is
        cut because it has more than MAX_PIECES pieces.
        """
        ids = self._model.encode(_check(text))
        if not ids:
            raise ValueError("The prompt is empty: describe some music, such as 'a happy piano melody with drums'.")
        if len(ids) >= MAX_PIECES:
            warnings.warn(f"The prompt is too long: only its first {MAX_PIECES - 1} pieces are used.", stacklevel=2)
        return ids[: MAX_PIECES - 1] + [self.eos_id]

    def decode(self, ids: Iterable[int] | Int[Tensor, " text_tokens"]) -> str:
        """Return the text of the ids, without padding and end.

        Raises ValueError for a number that is no piece's id, TypeError for what is no list of whole numbers.
        """
        wanted = f"Ids are whole numbers from 0 to {self.vocab_size - 1}"
        ids = ids.tolist() if isinstance(ids, Tensor) else ids
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise TypeError(f"{wanted}, not {ids!r:.60}.")
        return self._model.decode([check_number(wanted, index, Integral, 0, self.vocab_size - 1) for index in ids])

    def pieces(self, text: str) -> list[str]:
        """Return the pieces that `encode` counts, one an id."""
        return [self._model.id_to_piece(index) for index in self.encode(text)]

    def scores(self, text: str) -> list[float]:
        """Return the log probability of each piece that `encode` counts; it is 0 for the end and for the unknown."""
        return [self._model.get_score(index) for index in self.encode(text)]

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of the prompt that no training caption held, but for those that describe no music ("would").

        Says something of tokenizers from `train_tokenizer` only; a large vocabulary, as T5's, cuts known words too.
        """
        return [word for word in self._cut_words(text) if word not in PLAIN_WORDS]

    def with_words(self, words: Iterable[str]) -> Tokenizer:
        """Return a tokenizer in which each of these words is one piece more, in order, behind those that are there.

        Words are spelled as `unknown_words` gives them. A new one is as probable as the least probable word of before,
        which is far more than its letters together. Raises ValueError where one is empty, or a piece already.
        """
        proto = ModelProto.FromString(self._model.serialized_model_proto())
        known = {piece.piece: piece.score for piece in proto.pieces}
        score = min(score for piece, score in known.items() if piece.startswith(WORD_MARK) and len(piece) > 2)
        for word in words:
            if not word or WORD_MARK + word in known:
                raise ValueError(f"{word!r} cannot become a piece: it is empty, or a piece already.")
            known[WORD_MARK + word] = score
            proto.pieces.add(piece=WORD_MARK + word, score=score)
        return Tokenizer(proto.SerializeToString())

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write spiece.model, tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer opens."""
        folder = check_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        proto = ModelProto.FromString(self._model.serialized_model_proto())
        exported = T5Tokenizer(
            vocab=[(piece.piece, piece.score) for piece in proto.pieces],
            extra_ids=0,  # T5's 100 sentinels mark gaps to be filled, which no caption has
            model_max_length=MAX_PIECES,
            split_special_tokens=True,  # a typed '</s>' is text, as it is to sentencepiece, and ends nothing
            _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap,
        )
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:  # a killed write leaves no half file behind
            exported.save_pretrained(unfinished)
            (Path(unfinished) / "spiece.model").write_bytes(self._model.serialized_model_proto())
            for file in Path(unfinished).iterdir():
                os.replace(file, folder / file.name)

    def _cut_words(self, text: str) -> list[str]:
        """The words of the text that are not one piece, once each."""
        words = self._model.normalize(_check(text)).split(WORD_MARK)
        words = [re.sub(r"\W+$", "", word) for word in words]  # 'drums.' is two pieces, and neither is unknown
        pieces = {word: self._model.piece_to_id(WORD_MARK + word) for word in words if word}
        return [word for word, piece in pieces.items() if piece == self.unk_id]


def train_tokenizer(captions: Iterable[str], model_file: str | os.PathLike, vocab_size: int = 512) -> Tokenizer:
    """Train a unigram model in which every word of the captions is one piece, and write it to `model_file`.

    The vocabulary may stay smaller than `vocab_size`: EM drops pieces of hardly any probability. The model's own
    normalisation folds case and lets punctuation separate words: 'Happy,Piano' has the ids of 'happy, piano'.
    Raises ValueError where a word did not become one piece, which a larger `vocab_size` may mend, or where there is no
    word; TypeError for captions that are no strings and a size that is no whole number.
    """
    wanted = f"vocab_size must be a whole number from {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY:,}"
    vocab_size = check_number(wanted, vocab_size, Integral, SMALLEST_VOCABULARY, LARGEST_VOCABULARY)
    captions = list(captions) if isinstance(captions, Iterable) and not isinstance(captions, str) else [None]
    if not all(isinstance(caption, str) for caption in captions):
        raise TypeError("The captions must be a list of strings.")
    words = sorted({word for caption in captions for word in re.findall(r"[^\W_]+", caption.lower())})
    if not words:
        raise ValueError("The captions hold no words: give texts that describe music.")
    # A piece is considered only if it begins two different blank-separated strings, so each word comes in two.
    model = _train_unigram(captions + [f"{word}, {word}." for word in words], vocab_size)
    tokenizer = Tokenizer(model)
    if missing := tokenizer._cut_words(" ".join(words)):
        raise ValueError(
            f"With vocab_size={vocab_size} these words of the captions are not one piece: {', '.join(missing)}; "
            "raise vocab_size."
        )
    write_whole(model_file, model)
    return tokenizer


def separate_punctuation(model: bytes) -> bytes:
    """Return a sentencepiece model of the same pieces and scores, by whose rules punctuation separates words."""
    proto = ModelProto.FromString(model)
    rules = NormalizerSpec.FromString(separating_normalizer().serialized_normalizer_spec())
    proto.normalizer_spec.precompiled_charsmap = rules.precompiled_charsmap
    return proto.SerializeToString()


def _train_unigram(lines: list[str], vocab_size: int) -> bytes:
    content = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=map(separating_normalizer().normalize, lines),
            model_writer=content,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,  # captions of few words fill fewer pieces, and that is no error
            pad_id=Tokenizer.pad_id,
            eos_id=Tokenizer.eos_id,
            unk_id=Tokenizer.unk_id,
            bos_id=-1,  # T5 has no mark for the beginning
            character_coverage=1.0,
            required_chars=LETTERS,  # or a word with a letter that no caption holds would be all unknown
            num_threads=1,  # sums in a fixed order: the same captions give the same file
            minloglevel=2,
        )
    except RuntimeError as error:  # sentencepiece's words for it are those of its own source
        raise ValueError(f"With vocab_size={vocab_size} these captions teach no tokenizer: raise it.") from error
    return separate_punctuation(content.getvalue())


def _read(model_file: str | os.PathLike) -> bytes:
    if not isinstance(model_file, str | os.PathLike):
        raise TypeError(f"A tokenizer is read from a file's path, or from bytes, not from {model_file!r}.")
    if not os.path.isfile(model_file):
        raise FileNotFoundError(f"There is no tokenizer file {one_line(model_file)}: give the path of a spiece.model.")
    return Path(model_file).read_bytes()


def _check(text: str) -> str:
    """Return the prompt, cut if it is enormous and with half characters (lone surrogates) replaced."""
    if not isinstance(text, str):
        raise TypeError(f"A prompt is a string, not {type(text).__name__}.")
    return text.strip()[:MAX_CHARACTERS].encode(errors="replace").decode()


def _read_tokenizer_json(file: Path) -> bytes:
    """Return the sentencepiece model that a unigram `tokenizer.json` describes."""
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        normalizers = description["normalizer"] or {}
        pieces = [{"piece": piece, "score": score} for piece, score in description["model"]["vocab"]]
        return _to_sentencepiece(pieces, (normalizers, *normalizers.get("normalizers", ())))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"{one_line(file)} is not a unigram tokenizer of T5's kind.") from error


def _to_sentencepiece(pieces: list[dict], normalizers: Iterable[dict]) -> bytes:
    proto = ModelProto(pieces=pieces)
    for index, kind in enumerate(("CONTROL", "CONTROL", "UNKNOWN")):
        proto.pieces[index].type = ModelProto.SentencePiece.Type.Value(kind)
    spec = proto.trainer_spec
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = Tokenizer.pad_id, Tokenizer.eos_id, Tokenizer.unk_id, -1
    for normalizer in normalizers:
        if normalizer.get("type") == "Precompiled":
            proto.normalizer_spec.precompiled_charsmap = base64.b64decode(normalizer["precompiled_charsmap"])
    return proto.SerializeToString()


def as_prompts(prompt: str | Sequence[str]) -> list[str]:
    """Return one prompt or several as a list. Raises TypeError for anything else."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, Sequence):
        raise TypeError(f"The prompt must be a string or a list of strings, not {type(prompt).__name__}.")
    return list(prompt)


def warn_of_unknown_words(tokenizer: Tokenizer, prompts: list[str]) -> None:
    """Warn (UnknownWordsWarning) where prompts hold words that the model was never told."""
    if tokenizer.vocab_size >= WORD_VOCABULARY:
        return
    words = list(dict.fromkeys(word for prompt in prompts for word in tokenizer.unknown_words(prompt)))
    if words:
        named = ", ".join(f'"{word[:30]}"' for word in words[:5]) + ", …" * (len(words) > 5)
        message = f"The model does not know {named}; it was not taught these words, and they may change the music."
        warnings.warn(message, UnknownWordsWarning, stacklevel=4)
