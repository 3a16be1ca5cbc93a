"""A procedural composer: seeded pieces, their captions, and their sound. Only training needs it.

`score.py` says what a piece is, `compose.py` writes one, `captions.py` describes it in words and `render.py` plays it.
"""
