"""Models as folders, in the layout of transformers: a checkpoint.

`tensors.py` reads and writes files and knows no model, `transformers_config.py` says our sizes in transformers' words,
and `pretrained.py` puts both together: a whole model to and from a folder.
"""
