"""Describes a piece in words, as a person might: free in wording, in order, and in what is left unsaid.

These lists are the prompt language. A word that stands nowhere here was never seen in training.
"""

from __future__ import annotations

import random
import re

from musicgen_edu.composer.score import Attributes

INSTRUMENT_NAMES = {
    "piano": ("piano", "grand piano"),
    "acoustic guitar": ("acoustic guitar", "folk guitar"),
    "electric guitar": ("electric guitar", "clean electric guitar"),
    "strings": ("strings", "string ensemble", "string orchestra", "violins"),
    "flute": ("flute",),
    "organ": ("organ", "church organ", "pipe organ"),
    "marimba": ("marimba",),
    "music box": ("music box", "musical box"),
    "trumpet": ("trumpet",),
    "synth": ("synth", "synthesizer", "synth lead"),
}
# What stands before the noun, and what may follow it instead.
ADJECTIVES = {
    "slow": ("slow", "slow", "leisurely", "unhurried", "slow tempo", "slow paced"),
    "medium": ("medium tempo", "moderate", "mid tempo", "medium", "medium paced"),
    "fast": ("fast", "fast", "quick", "rapid", "fast tempo", "fast paced"),
    "major": ("happy", "cheerful", "major", "joyful", "bright", "uplifting", "merry", "major key"),
    "minor": ("sad", "melancholic", "minor", "melancholy", "mournful", "gloomy", "dark", "minor key"),
    "soft": ("peaceful", "gentle", "soft", "quiet", "calm", "tender"),
    "loud": ("energetic", "powerful", "loud", "strong", "intense", "vigorous"),
}
PHRASES = {
    "slow": ("at a slow tempo", "at a slow pace", "played slowly", "with a slow beat"),
    "medium": ("at a medium tempo", "at a moderate tempo", "at a medium pace", "at medium speed", "with a medium beat"),
    "fast": ("at a fast tempo", "at a quick pace", "played fast", "played quickly", "with a fast beat"),
    "major": ("in a major key", "in major", "in a happy mood", "that sounds happy", "that sounds cheerful"),
    "minor": ("in a minor key", "in minor", "in a sad mood", "that sounds sad", "that sounds melancholic"),
    "soft": ("played softly", "played gently", "with a gentle touch"),
    "loud": ("played loudly", "with energy", "with power", "with a powerful sound"),
}
TEXTURE_NOUNS = {
    "melody": ("melody", "melodic line", "melodies"),
    "arpeggio": ("arpeggio", "arpeggios", "broken chords", "arpeggiated chords"),
    "chords": ("chords", "block chords", "chord progression"),
}
NOUNS = ("music", "piece", "song", "tune", "track")  # when the texture is left unsaid
WITH_DRUMS = ("with drums", "with drums", "with a drum beat", "with percussion", "and drums", "with a drum kit")
WITHOUT_DRUMS = ("without drums", "without drums", "no drums", "without percussion", "no percussion")

TEMPLATES = (
    "{adjectives} {instrument} {noun} {phrases}",
    "{adjectives} {instrument} {noun}, {phrases}",
    "{a} {adjectives} {instrument} {noun} {phrases}",
    "some {adjectives} {instrument} {noun} {phrases}",
    "{adjectives} {noun} on {instrument} {phrases}",
    "{adjectives} {noun} for {instrument}, {phrases}",
    "{instrument} {noun}, {adjectives}, {phrases}",
    "{instrument} playing {adjectives} {noun} {phrases}",
    "a piece in which the {instrument} plays {adjectives} {noun} {phrases}",
    "{instrument}, {adjectives} {noun}, {phrases}",
    "please play {a} {adjectives} {noun} with {instrument} {phrases}",
    "I want to hear {adjectives} {instrument} {noun} {phrases}",
    "give me {a} {noun} that is {adjectives}, played by the {instrument}, {phrases}",
    "{adjectives} {noun} featuring {instrument} {phrases}",
    "a piece of music with {instrument}: {adjectives} {noun}, {phrases}",
    "generate {a} {adjectives} {noun} for solo {instrument} {phrases}",
    "create {a} short {instrument} {noun}, {phrases}, {adjectives}",
    "make some {adjectives} music: {instrument} {noun} {phrases}",
)
HELD_OUT_TEMPLATES = (
    "I want {a} {noun} for the {instrument} that is {adjectives} {phrases}",
    "{phrases}, {instrument}: {adjectives} {noun}",
    "please give me {adjectives} {noun} played on the {instrument} {phrases}",
    "the {instrument} plays some {noun}, {adjectives}, {phrases}",
)


def caption(attributes: Attributes, rng: random.Random, held_out: bool = False) -> str:
    """A caption for a piece with these attributes, worded differently at each call; see `describe`."""
    return describe(attributes, rng, held_out)[0]


def describe(attributes: Attributes, rng: random.Random, held_out: bool = False) -> tuple[str, frozenset[str]]:
    """A caption, and the names of the attributes that it tells; the others are left unsaid.

    A piece with drums nearly always says so, so that a prompt without drums means none.
    `held_out` takes sentence forms that training never sees.
    """
    said = _choose_said(attributes, rng)
    adjectives, phrases = [], []
    for name in ("tempo", "mode", "loudness"):
        if name in said:
            before = rng.random() < 0.65
            words = (ADJECTIVES if before else PHRASES)[getattr(attributes, name)]
            (adjectives if before else phrases).append(rng.choice(words))
    if "drums" in said:
        phrases.append(rng.choice(WITH_DRUMS if attributes.drums else WITHOUT_DRUMS))
    noun = rng.choice(TEXTURE_NOUNS[attributes.texture] if "texture" in said else NOUNS)
    instrument = rng.choice(INSTRUMENT_NAMES[attributes.instrument]) if "instrument" in said else ""
    if not instrument or (not held_out and rng.random() < 0.2):
        text = _keywords([word for word in (instrument, *adjectives, noun, *phrases) if word], rng)
    else:
        template = rng.choice(HELD_OUT_TEMPLATES if held_out else TEMPLATES)
        text = _fill(template, adjectives, instrument, noun, phrases, rng)
    return text + rng.choice(("", "", "", ".", "!")), frozenset(said)


def _choose_said(attributes: Attributes, rng: random.Random) -> set[str]:
    """The attributes that a caption tells: often all of them, else a part."""
    complete = rng.random() < 0.4
    said = {name for name in ("tempo", "mode", "loudness", "texture") if complete or rng.random() < 0.7}
    if rng.random() < 0.92:
        said.add("instrument")
    if rng.random() < (0.95 if attributes.drums else 0.4):
        said.add("drums")
    return said


def _keywords(words: list[str], rng: random.Random) -> str:
    rng.shuffle(words)
    return rng.choice((", ", " ", ", ")).join(words)


def _fill(template: str, adjectives, instrument, noun, phrases, rng: random.Random) -> str:
    rng.shuffle(adjectives)
    rng.shuffle(phrases)
    several = noun.endswith("s")
    text = template.format(
        a="some" if several or noun == "music" else "a", adjectives=rng.choice((" ", ", ", " and ")).join(adjectives),
        instrument=instrument, noun=noun, phrases=" ".join(phrases),
    )  # fmt: skip
    if several:
        text = text.replace("that is", "that are").replace("that sounds", "that sound")
    return _tidy(text)


def _tidy(text: str) -> str:
    """Mend what an empty slot leaves: doubled blanks and commas, a comma at the end, "a" before a vowel."""
    text = re.sub(r"\s+", " ", text).replace(" ,", ",").replace(" :", ":")
    text = re.sub(r"(,\s*)+", ", ", text)
    text = re.sub(r"(that (is|are)),", r"\1", text).strip(" ,:")
    text = re.sub(r" that (is|are)(?= (played|with|without|in|at|and|plus|no|that) |$)", "", text)
    return re.sub(r"\ba (?=[aeiou])", "an ", text).replace(": ,", ":").strip()
