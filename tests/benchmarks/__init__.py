"""Measured promises: each module of this folder has its figures, with the bounds that they must keep.

`make bench` runs them all. A figure is a ratio of two measurements of one run, since a machine's speed is nobody's
promise; processor time is counted, so that what else the machine does matters little.
"""
