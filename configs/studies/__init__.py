"""Studies: tables of runs and what is read off them. `python -m eval.study`."""
