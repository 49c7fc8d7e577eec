"""Measured promises: each module of this folder prints its figures, and says whether the bound is kept.

`make bench` runs them all. A figure is a ratio of two measurements of one run, since a machine's speed is nobody's
promise; processor time is counted, so that what else the machine does matters little.
"""
