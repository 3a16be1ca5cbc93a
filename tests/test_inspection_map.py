"""The map of the rooms: every room lights one arrow, and the words stand in the picture's alt text."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from musicgen_edu.inspection.pipeline_map import FORMS, LIT, ROOMS, draw_map


def words_in(picture) -> str:
    return " ".join("".join(text.itertext()) for text in ElementTree.fromstring(picture.content).iter() if text.text)


def test_without_a_room_nothing_is_lit():
    picture = draw_map()
    assert LIT not in picture.content.decode() and "You are here" not in picture.alt
    assert all(form in picture.alt and form in words_in(picture) for form in FORMS)
    assert (picture.media_type, draw_map(0)) == ("image/svg+xml", picture)


@pytest.mark.parametrize("room", [1, 2, 3, 4, 5, 6, 7])
def test_each_room_lights_its_arrow_and_is_named(room):
    picture = draw_map(room)
    svg = picture.content.decode()
    (part,) = (rooms[room] for rooms in ROOMS if room in rooms)
    assert svg.count(LIT) == 1 and svg.count("you are here") == 1
    assert f'font-weight="bold">0{room} · {part}<' in svg and svg.count('<tspan font-weight="bold"') == 1
    assert picture.alt.endswith(f"You are here: room 0{room} · {part}.")


def test_notes_replace_the_shapes_and_are_escaped():
    picture = draw_map(notes={"prompt": "<i>drums & bass</i>", "codes": "[1, 4, 150]"})
    assert "<i>drums & bass</i>" in words_in(picture) and "[1, 4, 150]" in picture.alt
    assert "samples" not in picture.alt
    assert 'alt="The way' in picture._repr_html_() and "<i>" not in picture._repr_html_()


def test_a_long_note_is_cut_to_fit():
    assert "…" in words_in(draw_map(notes={"prompt": "a very " * 40 + "long prompt"}))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="There is no form 'noise' on the map: choose among prompt, ids"):
        draw_map(notes={"noise": "?"})
