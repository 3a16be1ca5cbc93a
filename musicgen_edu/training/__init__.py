"""Trains every part from nothing: music and captions, tokenizer, codec, then text encoder, projection and decoder.

`loop.py` runs any of the trainings, `data.py` makes the music, `codec.py` and `decoder.py` hold the objectives,
`codec_start.py` places the codec's first weights, `aim.py` turns the decoder's heads towards the mode, and `recipe.py`
is the whole way. RUNS.md keeps the log of what was tried.
"""
