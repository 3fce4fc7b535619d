"""No number is lost or mixed, over any set of results."""

import pathlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.compare import tables
from eval.evaluator import Number
from eval.results import Result
from tests.eval.compare.test_runs import a_run, changed

ACCURACY = (Number("accuracy", percent=True, chance=0.1),)
PATH = pathlib.Path("eval.json")
CASES = st.tuples(
    st.sampled_from(("epochs", "seed")),  # what sets a run apart beside its place
    st.integers(0, 1),  # the seed
    st.sampled_from(("knn", "probe")),  # name
    st.sampled_from(("k=10", "k=20")),  # protocol
    st.sampled_from(("cifar10", "stl10")),  # images
    st.sampled_from((400, 900)),  # step
    st.booleans(),  # untrained
)


def a_result(name, value, protocol="k=10", images="cifar10", step=900, untrained=False):
    content = {
        "result": {"accuracy": value},
        "protocol": protocol,
        "headline": ACCURACY,
        "step": 0 if untrained else step,
        "images": {images: "1a2b"},
        "evaluator": name,
    }
    return Result(name, PATH, content, untrained)


@settings(deadline=None)
@given(st.lists(CASES, min_size=1, max_size=12, unique=True))
def test_each_number_stands_once_where_it_belongs(cases):
    runs, results = {}, {}
    for place, (kind, seed, *about) in enumerate(cases):
        path = f"{kind}{seed}"
        config = changed({kind} - {"seed"}, seed)
        runs[path] = a_run(path, config)
        name, protocol, images, step, untrained = about
        if untrained and any(
            x[2:5] == (name, protocol, images) and x[6] for x in cases[:place]
        ):
            continue  # one network, whatever trains it: once for a seed
        value = float(place + 1)
        result = a_result(name, value, protocol, images, step, untrained)
        results.setdefault(path, []).append((value, result))
    comparison = tables.compare(
        [(runs[path], [x for _, x in own]) for path, own in results.items()]
    )
    wanted = {value for own in results.values() for value, _ in own}
    shown = [
        value
        for row in comparison.rows
        for cell in (row.untrained | row.values).values()
        for value in cell.values()
    ]
    assert sorted(shown) == sorted(wanted)
    # A cell holds one protocol on one set, at one step, of runs that differ in their seed.
    of = {value: cases[int(value) - 1] for value in wanted}
    for row in comparison.rows:
        cells = list(row.values.values())
        questions = {
            of[v][3:5]
            for cell in (*cells, *row.untrained.values())
            for v in cell.values()
        }
        assert len(questions) == 1
        for cell in cells:
            assert len({(of[v][0], of[v][5]) for v in cell.values()}) == 1
            assert all(of[v][1] == seed for seed, v in cell.items())
    names = [row.name for row in comparison.rows]
    assert len(set(names)) == len(names)


def test_a_table_has_its_floor_its_chance_and_its_differences():
    values = {"SP": (0.6, 0.7, 0.65), "AP": (0.5, 0.6, 0.56)}
    found = []
    for label, seeds in values.items():
        for seed, value in enumerate(seeds):
            config = changed(set(), seed)
            config["data"]["pairing"] = "semantic" if label == "SP" else "augmented"
            run = a_run(f"{label}{seed}", config)
            floor = a_result("knn", 0.2 + seed / 100, untrained=True)
            found.append((run, [a_result("knn", value), floor]))
    comparison = tables.compare(found)
    header, row = tables.make_table(comparison)
    assert header[2:] == [
        *("chance", "untrained", "SP (n = 3)"),
        "AP (n = 3)",
    ]
    assert row[:4] == ["knn", "accuracy", "0.100", "0.210 ± 0.010"]
    assert row[4] == f"0.650 ± {np.std(values['SP'], ddof=1):.3f}"
    (difference,) = tables.find_differences(comparison)
    assert (difference.word, difference.interval.seeds) == ("better", 3)
    text = tables.make_differences([difference])[1]
    assert text[2:] == [
        "SP − AP",
        *("+0.097 [+0.082, +0.111]", "3", "better"),
    ]


def test_one_seed_has_no_verdict_and_none_in_common_is_said():
    other = changed({"epochs"}, 1)
    one, two = a_run("a"), a_run("b", other)
    comparison = tables.compare(
        [(one, [a_result("knn", 0.5)]), (two, [a_result("knn", 0.6)])]
    )
    assert not tables.find_differences(comparison)
    assert "no seed in common" in comparison.notes[0]
    two = a_run("b", changed({"epochs"}, 0))
    comparison = tables.compare(
        [(one, [a_result("knn", 0.5)]), (two, [a_result("knn", 0.6)])]
    )
    table = tables.make_differences(tables.find_differences(comparison))
    assert table[1][3:] == ["-0.100", "1", "one seed: no verdict"]
