"""A study: the runs of a table, their missing parts, and a page that shows them.

`plan` reads a study and lists the commands that make it, `runner` runs them, `numbers` reads
the results and judges the claims, `page` draws them. `budget` and `own_images` make
the study of `configs/studies/own.py`, which has to fit into some hours. `python -m eval.study`
is the program.

In all of them `study` is what `plan.read_study` returns, `jobs` are its runs, `pool` is the
folder of all runs, and `values` are what `numbers.collect` returns.
"""
