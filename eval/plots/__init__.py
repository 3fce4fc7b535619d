"""Pictures to check before trusting a number, drawn by matplotlib."""

import matplotlib

matplotlib.use("Agg")  # no display is needed
matplotlib.rcParams["text.parse_math"] = False  # Names may hold dollar signs.
