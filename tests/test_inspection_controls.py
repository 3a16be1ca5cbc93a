"""Controls hold their options, values and labels together; views say without a kernel what they are.

That they are drawn, named and moved by keyboard is for the browser test to see.
"""

from __future__ import annotations

import pytest

from musicgen_edu.inspection.controls import Choice, Heard, Shown, Slider, View, row, stops, text_box

TEMPERATURES = stops(0.0, 0.5, 0.1)


def test_stops_are_the_numbers_that_one_would_write():
    assert TEMPERATURES == [("0", 0.0), ("0.1", 0.1), ("0.2", 0.2), ("0.3", 0.3), ("0.4", 0.4), ("0.5", 0.5)]
    assert stops(2, 4) == [("2", 2), ("3", 3), ("4", 4)] and stops(0, 0) == [("0", 0)]


def test_value_and_index_follow_each_other_and_are_observed_once():
    slider = Slider("temperature", TEMPERATURES, 0.2)
    seen = []
    slider.observe(lambda change: seen.append(change["new"]), "value")
    slider.index = 4  # as the browser sets it
    slider.value = 0.1
    assert (seen, slider.index, slider.labels[slider.index]) == ([0.4, 0.1], 1, "0.1")


def test_none_can_be_an_option_with_a_name():
    head = Slider("Head", [("mean of all heads", None), *stops(0, 2)], None)
    assert (head.index, head.labels[0], head.value) == (0, "mean of all heads", None)
    head.index = 1
    assert head.value == 0
    head.value = None
    assert head.index == 0


def test_where_none_is_no_option_nothing_is_chosen():
    choice = Choice("X is", "AB")
    assert (choice.labels, choice.index, choice.value) == (["A", "B"], -1, None)
    choice.index = 1
    assert choice.value == "B"
    choice.value = None
    assert choice.index == -1


def test_a_value_that_is_no_option_is_refused_and_changes_nothing():
    slider = Slider("frames", stops(1, 3), 2)
    with pytest.raises(ValueError, match="frames has no 7: choose among 1, 2, 3"):
        slider.value = 7
    with pytest.raises(ValueError, match="frames has no 9: choose among 5, 6"):
        slider.offer(stops(5, 6), 9)
    assert (slider.value, slider.labels) == (2, ["1", "2", "3"])


def test_other_options_keep_value_and_index_together():
    slider = Slider("frames", stops(1, 8), 8)
    seen = []
    slider.observe(lambda change: seen.append((change["new"], slider.index, len(slider.labels))), "value")
    slider.offer(stops(1, 3), 3)
    slider.offer(stops(2, 4), 3)
    assert seen == [(3, 2, 3)] and (slider.value, slider.index) == (3, 1)


def test_the_newest_players_stand_above_and_only_they_start():
    heard = Heard()
    heard.play('<audio src="1"></audio><audio src="2"></audio>')
    heard.play('<audio src="3"></audio>')
    assert heard.value == '<audio autoplay src="3"></audio><audio src="1"></audio><audio src="2"></audio>'


def test_without_a_kernel_a_view_says_what_it_is_and_shows_how_it_begins():
    shown = Shown(value='<img alt="A picture" src="data:,">')
    view = View([text_box("Prompt", "piano", "Words"), row(Slider("Layer", stops(0, 3), 0)), shown], shown)
    data = view._repr_mimebundle_()
    sentence = "An interactive view, to be run: it needs a kernel. Its controls: Prompt, Layer."
    assert data["text/plain"] == sentence
    assert data["text/html"] == f'<p role="note">{sentence} It begins with this:</p>{shown.value}'
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    assert "begins" not in View([Slider("Layer", stops(0, 3), 0)])._repr_mimebundle_()["text/html"]
