"""Fair comparisons of runs.

`runs` identifies runs and groups those that differ only in their seed, `statistics` judges
their numbers, and `tables` combines both for the report, the suite, the study and the figures
of invariance and detection.
"""
