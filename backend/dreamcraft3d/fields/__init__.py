"""Learned functions of position: what a stage optimises and hands on.

`X.from_y()` is the typed hand-over from stage to stage.
"""
