"""Looks into the running model: the map of the rooms, a trace of every shape, figures and widgets for the notebooks.

Each widget is a pure function that computes, a picture that stands for it without a kernel, and a thin view over both.
"""
