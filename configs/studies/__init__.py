"""Studies: tables of runs, and the numbers to read from them. `python -m eval.study`."""
