"""Room 10: is it real?

`checks.py` holds the experiments, `rounding.py` and `permutation_tests.py` what they are held to. `parity.py` holds
every variant against transformers, and `divergence.py` says where two models part.
"""
