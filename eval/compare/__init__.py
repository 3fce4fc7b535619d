"""Comparisons of runs that cannot mislead.

`runs` says what a run is and which runs are seeds of one thing, `statistics` what their numbers
say, `tables` puts both beside each other: the report, the suite, the study and the figures of
invariance and detection show what it makes.
"""
