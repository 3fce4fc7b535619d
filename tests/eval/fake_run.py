"""The folder of a run, written by hand: its config, its pairs and a line of its record."""

import json
import pathlib

from configs import common

PAIRS = """# store=fake
# split=all
# fingerprint=00ff
# source=semantic pairs, rounds=1, seed=0
first,second,label
a.png,b.png,cat
"""


def write_run(folder: pathlib.Path, config=None, pairs: str = PAIRS) -> pathlib.Path:
    """Write a run that has trained seven steps, and give its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = common.get_config().to_dict() if config is None else config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pairs.csv").write_text(pairs)
    line = {"step": 7, "epoch": 0.1, "time": 0.0, "loss": 1.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folder
