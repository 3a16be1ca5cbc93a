"""A procedural composer: seeded pieces, their captions, and their sound. Training needs it, and evaluation.

`score.py` says what a piece is, `compose.py` writes one, `captions.py` describes it in words and `render.py` plays it.
`samples.py` reads what of all this comes with the package.
"""
