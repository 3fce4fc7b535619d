"""A study: every run of a table, what is missing of it, and a page that shows it.

`plan` reads a study and says which commands make it, `runner` runs them, `numbers` reads the
results and judges the claims, `page` draws them. `budget` and `own_images` make
the study of `configs/studies/own.py`, which has to fit into some hours. `python -m eval.study`
is the program.

In all of them `study` is what `plan.read_study` returns, `jobs` are its runs, `pool` is the
folder of all runs, and `values` are what `numbers.collect` returns.
"""
