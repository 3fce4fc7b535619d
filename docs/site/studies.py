"""The results of all studies, from docs/studies/*.csv and nothing else."""

import csv
import pathlib

from eval.compare.statistics import mean_text
from eval.study.numbers import ORIGIN

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "studies"
_OTHERS = ("seed", "measure", "value", "paper", *ORIGIN)


def read_study(path):
    """A study.csv by arm: (factors, origin) -> measure -> values of the seeds.

    The origin is the device and the command. The seeds of an arm may be of several commits.
    """
    found = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            factors = tuple(
                x for name, x in row.items() if name not in (*_OTHERS, "arm")
            )
            if row["arm"].startswith("untrained"):
                factors = (row["arm"], *factors[1:])
            origin = row["device"], row["command"]
            measures = found.setdefault((factors, origin), {})
            measures.setdefault(row["measure"], []).append(float(row["value"]))
    return found


def read_commits(path):
    """The commits of each origin of a study.csv, in the order of their rows."""
    found = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            commits = found.setdefault((row["device"], row["command"]), {})
            commits.update(dict.fromkeys(row["commit"].split("; ")))
    return found


def make_tables():
    """A section for each study: mean and spread of each arm, and where they come from."""
    parts = []
    for path in sorted(FOLDER.glob("*.csv")):
        rows = read_study(path)
        measures = list(dict.fromkeys(name for one in rows.values() for name in one))
        commits = read_commits(path)
        origins = list(commits)
        with open(path, encoding="utf-8", newline="") as file:
            names = [x for x in next(csv.reader(file)) if x not in (*_OTHERS, "arm")]
        lines = [
            [*names, "seeds", *measures, "from"],
            ["---"] * (len(names + measures) + 2),
        ]
        for (factors, origin), values in rows.items():
            seeds = max(map(len, values.values()))
            cells = [mean_text(values.get(name, []), 2) for name in measures]
            cells = [cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in cells]
            lines.append(
                [*factors, str(seeds), *cells, f"[{origins.index(origin) + 1}]"]
            )
        parts += [f"## {path.stem}", f"Each run: [{path.name}](studies/{path.name})."]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        for number, (device, command) in enumerate(origins, 1):
            text = command.replace(" --", " \\\n    --").replace("\\\n    ", "", 1)
            at = ", ".join(commits[device, command])
            parts.append(f"[{number}] {at}, {device}:\n\n```\n{text}\n```")
        if path.with_suffix(".png").exists():
            parts.append(f"![Bars of {path.stem}](studies/{path.stem}.png)")
    return "\n\n".join(parts)
