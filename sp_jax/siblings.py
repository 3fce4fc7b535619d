"""Where `configs`, `eval` and `input_pipeline` are: in the folder that holds `sp_jax`.

`python -m` searches the current folder first, and many projects have an `eval.py` or a
folder `configs/`. Importing this module puts our folder before it, which is done by what needs
these packages: the command that trains, and the packages that need each other. The library
does not: `import sp_jax` leaves the path of a user's own modules as it is.
"""

import pathlib
import sys

from sp_jax import extras

extras.require("train", "A program of sp_jax")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
