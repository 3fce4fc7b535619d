"""Tables of results: a row for each question, a column for runs that differ in their seed."""

import csv
import io
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from eval.compare import runs as compared
from eval.compare.runs import Column, Run
from eval.compare.statistics import (
    Interval,
    by_chance,
    difference_text,
    judge,
    mean_text,
    paired,
)
from eval.evaluator import Number
from eval.results import Result
from sp_jax.train.identity import network_facts

# Columns up to this number are all compared with each other.
ALL_PAIRS = 3


class Row(NamedTuple):
    """One number of one evaluation: one protocol, on the same images.

    Attributes:
      name: of the evaluation.
      number: the one that is shown.
      protocol: how it was measured.
      main: whether it is the most important number of its evaluation.
      untrained: label of the network -> seed -> value before training.
      values: label of the column -> seed -> value.
    """

    name: str
    number: Number
    protocol: str
    main: bool
    untrained: dict[str, dict[int | None, float]]
    values: dict[str, dict[int | None, float]]


class Difference(NamedTuple):
    """A column minus another one in a row."""

    row: Row
    one: str
    other: str
    interval: Interval
    word: str


class Comparison(NamedTuple):
    """All results of some runs.

    Attributes:
      columns: groups of runs that differ only in their seed.
      untrained: the labels of the networks that were measured before training.
      rows: the numbers.
      differs: the facts in which the columns differ, and their values.
    """

    columns: list[Column]
    untrained: list[str]
    rows: list[Row]
    differs: list[list[str]]

    @property
    def notes(self) -> list[str]:
        """What a reader has to know about the columns."""
        notes = [
            f"{column.label}: {x}" for column in self.columns for x in column.notes
        ]
        for one, other in pairs_of(self):
            if not {x.seed for x in one.runs} & {x.seed for x in other.runs}:
                notes.append(
                    f"{one.label} and {other.label} have no seed in common: their "
                    "difference is not judged."
                )
        return notes

    @property
    def newest(self) -> dict[str, list[Run]]:
        """The runs of each column; a run appears only at its last measured step."""
        last: dict[pathlib.Path, int] = {}
        for column in self.columns:
            for run in column.runs:
                last[run.path] = max(run.step, last.get(run.path, 0))
        groups = {
            column.label: [run for run in column.runs if run.step == last[run.path]]
            for column in self.columns
        }
        return {label: group for label, group in groups.items() if group}

    @property
    def protocols(self) -> dict[str, str]:
        """The protocol of each evaluation."""
        return {row.name: row.protocol for row in self.rows}


def compare(
    results: Iterable[tuple[Run, Iterable[Result]]], headlines: int = 1
) -> Comparison:
    """Compare results.

    Results at an earlier step of a run, or of an unfinished run, form their own column.

    Args:
      results: runs, and the results of each and of its untrained network.
      headlines: how many of an evaluation's numbers are shown, the most important ones first.
    """
    found: dict[str, list[tuple[Run, Result]]] = {}
    measured: dict[tuple[pathlib.Path, int], Run] = {}
    untrained: dict[pathlib.Path, Run] = {}
    for run, own in results:
        for result in own:
            now = run if result.untrained else run.at(result.content["step"])
            if result.untrained:
                untrained.setdefault(run.path, run)
            else:
                measured.setdefault((run.path, now.step), now)
            found.setdefault(_question(result), []).append((now, result))
    columns = compared.make_columns(list(measured.values()))
    networks = _name_networks(list(untrained.values()))
    label_of = {
        (run.path, run.step): column.label for column in columns for run in column.runs
    }
    names = _name_rows([group[0][1] for group in found.values()])
    rows = []
    for name, group in zip(names, found.values(), strict=True):
        content = group[0][1].content
        for number in content["headline"][:headlines]:
            main = number == content["headline"][0]
            row = Row(name, number, content["protocol"], main, {}, {})
            for run, result in group:
                if number.name not in result.content["result"]:
                    continue
                value = result.content["result"][number.name]
                if result.untrained:
                    cells, label = row.untrained, networks[run.path]
                else:
                    cells, label = row.values, label_of.get((run.path, run.step))
                if label is not None:  # None: a seed that is there twice
                    cells.setdefault(label, {}).setdefault(run.seed, value)
            rows.append(row)
    shown = list(dict.fromkeys(networks.values()))
    facts = [column.runs[0].facts for column in columns]
    return Comparison(columns, shown, rows, compared.find_differences(facts))


def _question(result: Result) -> str:
    """The question of a result, without the weights: results of one question are comparable."""
    content = result.content
    keys = [content.get(key) for key in ("evaluator", "protocol", "images")]
    return json.dumps([*keys, [x.name for x in content["headline"]]], sort_keys=True)


def _name_networks(runs: Sequence[Run]) -> dict[pathlib.Path, str]:
    """The label of the untrained network of each run, by the run's path."""
    facts = {run.path: network_facts(run.facts) for run in runs}
    texts = {path: json.dumps(one, sort_keys=True) for path, one in facts.items()}
    groups = {text: facts[path] for path, text in texts.items()}
    named = dict(zip(groups, compared.name_groups(list(groups.values())), strict=True))
    return {
        path: ", ".join(filter(None, ("untrained", named[text])))
        for path, text in texts.items()
    }


def _name_rows(results: Sequence[Result]) -> list[str]:
    """Name each question by the result's name; equal names get images or numbers added."""
    names = [result.name for result in results]
    if len(set(names)) < len(names):
        images = [result.content.get("images") or {} for result in results]
        names = [
            f"{name} on {', '.join(some) or 'unknown images'}"
            if names.count(name) > 1
            else name
            for name, some in zip(names, images, strict=True)
        ]
    return [
        f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def make_table(
    comparison: Comparison, baselines: Mapping[str, Mapping[str, float]] | None = None
) -> list[list[str]]:
    """Rows of text: mean and sample standard deviation of each column.

    Args:
      comparison: what to show.
      baselines: name of an evaluation -> name of a column -> value, shown at the end.
    """
    baselines = baselines or {}
    more = list(dict.fromkeys(name for row in baselines.values() for name in row))
    labels = [column.label for column in comparison.columns]
    seeds = {column.label: len(column.runs) for column in comparison.columns}
    heads = [f"{x} (n = {seeds[x]})" if seeds[x] > 1 else x for x in labels]
    table = [["evaluation", "measure", "chance", *comparison.untrained, *heads, *more]]
    for row in comparison.rows:
        chance = row.number.chance
        cells = [row.untrained.get(label, {}) for label in comparison.untrained]
        cells += [row.values.get(label, {}) for label in labels]
        known = baselines.get(row.name, {})
        table.append(
            [
                row.name,
                row.number.name.replace("_", " "),
                "" if chance is None else f"{chance:.3f}",
                *(mean_text(list(cell.values())) for cell in cells),
                *(mean_text([known[x]] if x in known else []) for x in more),
            ]
        )
    return table


def find_differences(comparison: Comparison) -> list[Difference]:
    """The differences between columns in each evaluation's main number, seed by seed.

    If there is only one evaluation, all its numbers count. Few columns are all compared; of
    many, those that differ only in the kind of their pairs, or else each with the first.
    """
    alone = len(comparison.protocols) == 1
    pairs = [(one.label, other.label) for one, other in pairs_of(comparison)]
    return [
        Difference(row, one, other, found, judge(found, row.number.better))
        for row in comparison.rows
        if row.main or alone
        for one, other in pairs
        if (found := paired(row.values.get(one, {}), row.values.get(other, {}))).seeds
    ]


def pairs_of(comparison: Comparison) -> list[tuple[Column, Column]]:
    """The columns that are compared with each other."""
    columns = comparison.columns
    pairs = [(a, b) for i, a in enumerate(columns) for b in columns[i + 1 :]]
    if len(columns) > ALL_PAIRS:
        facts = [(a.runs[0].facts, b.runs[0].facts) for a, b in pairs]
        rows = map(compared.find_differences, facts)
        alone = [{row[0] for row in some} <= {"kind", "data.pairing"} for some in rows]
        chosen = [pair for pair, one in zip(pairs, alone, strict=True) if one]
        pairs = chosen or pairs[: len(columns) - 1]
    return pairs


def make_differences(differences: Sequence[Difference]) -> list[list[Any]]:
    """Rows of text: each difference with its 95 % interval and its verdict."""
    names = ["evaluation", "measure", "difference", "here", "seeds", "verdict"]
    table: list[list[Any]] = [names]
    for one in differences:
        said = one.word if one.interval.seeds > 1 else f"{one.word}: no verdict"
        what, seeds = f"{one.one} − {one.other}", str(one.interval.seeds)
        measure = one.row.number.name.replace("_", " ")
        here = difference_text(one.interval)
        table.append([one.row.name, measure, what, here, seeds, said])
    return table


def chance_note(differences: Sequence[Difference]) -> str:
    """A sentence on the effect of chance on these verdicts; "" if there are none."""
    judged = sum(one.interval.seeds > 1 for one in differences)
    return by_chance(judged) if judged > 1 else ""


def page_values(
    comparison: Comparison, baselines: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """The values of a comparison for the templates of `eval.pages`; see `make_table`."""
    differences = find_differences(comparison)
    return {
        "comparison": comparison,
        "table": make_table(comparison, baselines),
        "differences": make_differences(differences),
        "by_chance": chance_note(differences),
    }


def format_csv(table: Sequence[Sequence[Any]]) -> str:
    """The table as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def format_table(table: Sequence[Sequence[str]]) -> str:
    """The table in aligned columns, for a terminal."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )


def list_values(comparison: Comparison) -> list[list[Any]]:
    """Every number: a row for each value of each seed."""
    table: list[list[Any]] = [["evaluation", "measure", "column", "seed", "value"]]
    for row in comparison.rows:
        for label, cell in (row.untrained | row.values).items():
            for seed, value in cell.items():
                table.append([row.name, row.number.name, label, seed, value])
    return table


def print_comparison(table: Sequence[Sequence[str]], comparison: Comparison) -> None:
    """Print the numbers, the differences and the notes on them."""
    print(format_table(table))
    differences = find_differences(comparison)
    if differences:
        print(f"\n{format_table(make_differences(differences))}")
    for note in filter(None, (chance_note(differences), *comparison.notes)):
        print(note)
