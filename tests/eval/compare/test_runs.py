"""Runs are grouped if only their seed differs."""

import json
import pathlib

from hypothesis import given, settings
from hypothesis import strategies as st

from configs import common
from eval.compare.runs import AP, SP, describe, make_columns
from sp_jax.config import flatten
from sp_jax.train.identity import FREE_TO_CHANGE, network_facts

CONFIG = common.get_config().to_dict()
LABELS = {"by": "labels", "rounds": 1}
PAIRS = {"digest": "a", "store": "b", "source": "", "recipe": LABELS, "same": 0.0}
FREE = tuple(f"{name}." for name in ("seed", *FREE_TO_CHANGE))
KEYS = sorted(name for name in flatten(CONFIG) if not f"{name}.".startswith(FREE))


def changed(names, seed=0):
    """The config with other values at some keys."""

    def walk(tree, prefix=""):
        new = {}
        for name, value in tree.items():
            path = f"{prefix}{name}"
            if isinstance(value, dict):
                new[name] = walk(value, f"{path}.")
            elif path not in names:
                new[name] = value
            elif isinstance(value, bool):
                new[name] = not value
            elif isinstance(value, int | float):
                new[name] = value + 1
            elif isinstance(value, str):
                new[name] = f"{value}-other"
            else:
                new[name] = 0.5
        return new

    return walk(CONFIG) | {"seed": seed}


def a_run(path, config=CONFIG, pairs=PAIRS, step=900, total=900, versions=()):
    return describe(pathlib.Path(path), config, pairs, step, total, dict(versions))


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from(KEYS), max_size=3), min_size=1, max_size=5))
def test_no_two_runs_that_differ_in_anything_but_the_seed_are_averaged(cases):
    runs = [
        a_run(f"{place}-{seed}", changed(names, seed))
        for place, names in enumerate(cases)
        for seed in (0, 1)
    ]
    columns = make_columns(runs)
    kinds = list(dict.fromkeys(map(frozenset, cases)))
    assert len(columns) == len(kinds)
    assert len({column.label for column in columns}) == len(columns)
    for column, names in zip(columns, kinds, strict=True):
        places = {int(run.path.name.split("-")[0]) for run in column.runs}
        assert {frozenset(cases[place]) for place in places} == {names}
        assert sorted(run.seed for run in column.runs) == [0, 1]
        # Each change is named, unless it follows from one that is.
        if not any(x & {"method", "model.name", "data.pairing"} for x in kinds):
            named = {x for x in names if not all(x in other for other in kinds)}
            assert all(name in column.label for name in named)


@settings(deadline=None)
@given(st.sampled_from(sorted(set(flatten(CONFIG)) - set(KEYS))))
def test_what_may_change_in_a_resumed_run_makes_no_column(name):
    other = changed({name}, seed=1)
    (column,) = make_columns([a_run("one"), a_run("two", other)])
    assert len(column.runs) == 2 and column.label == SP


def test_how_the_table_was_made_counts_and_its_rows_do_not():
    again = PAIRS | {"digest": "another", "source": "seed 1"}
    mined = PAIRS | {"recipe": {"by": "mined", "encoder": {"facts": "1a"}}}
    other = PAIRS | {"recipe": {"by": "mined", "encoder": {"facts": "2b"}}}
    config = changed(set(), 1)
    columns = make_columns(
        [a_run("a"), a_run("b", config, again), a_run("c", pairs=mined)]
    )
    assert [len(column.runs) for column in columns] == [2, 1]
    assert "pairs=mined" in columns[1].label
    columns = make_columns([a_run("c", pairs=mined), a_run("d", pairs=other)])
    assert len({column.label for column in columns}) == 2


def test_the_kind_of_pairs_is_that_of_the_table():
    own = PAIRS | {"same": 1.0}
    assert a_run("a").kind == SP and a_run("b", pairs=own).kind == AP
    half = changed(set())
    half["data"] |= {"pairing": "mixed", "semantic_fraction": 0.5}
    assert a_run("c", half).kind == "50 % SP"
    semantic, augmented = make_columns([a_run("a"), a_run("b", pairs=own)])
    assert (semantic.label, augmented.label) == (SP, AP)


def test_what_is_not_finished_is_a_column_of_its_own():
    done, early = make_columns([a_run("a"), a_run("b", step=400)])
    assert (done.label, early.label) == ("finished", "step 400 of 900")


def test_other_weights_to_start_from_are_another_column_and_another_path_is_not():
    def start(path, weights):
        return changed(set(), seed=len(path)) | {"init": path, "init_weights": weights}

    one, same, other = start("a", "1" * 64), start("bb", "1" * 64), start("a", "2" * 64)
    runs = [a_run("0"), a_run("1", one), a_run("2", same), a_run("3", other)]
    random, *columns = make_columns(runs)
    assert random.label == "init=random" and not random.notes
    assert [x.label for x in columns] == ["init=11111111", "init=22222222"]
    assert columns[0].notes == tuple(
        f"Started from the weights in {x}." for x in ("a", "bb")
    )
    untrained = {json.dumps(network_facts(run.facts)) for run in runs}
    assert len(untrained) == 3


def test_other_code_and_a_seed_that_is_there_twice_are_noted():
    new = {"sp_jax": "commit 2"}
    runs = [a_run("a"), a_run("b", changed(set(), 1), versions=new), a_run("c")]
    (column,) = make_columns(runs)
    assert [run.path.name for run in column.runs] == ["a", "b"]
    twice, versions = column.notes
    assert "Seed 0 is there twice: a is used, c is not" in twice
    assert "different versions" in versions and "commit 2" in versions


def test_a_method_names_what_follows_from_it():
    other = json.loads(json.dumps(CONFIG))
    other["method"], other["method_options"] = "vicreg", {"variance_weight": 25.0}
    other["optimizer"]["learning_rate"] = 0.1
    columns = make_columns([a_run("a"), a_run("b", other)])
    assert [x.label for x in columns] == ["method=simclr", "method=vicreg"]
    longer = json.loads(json.dumps(other))
    longer["epochs"], longer["method_options"]["variance_weight"] = 7.0, 5.0
    labels = [x.label for x in make_columns([a_run("b", other), a_run("c", longer)])]
    assert "epochs=7.0" in labels[1] and "variance_weight=5.0" in labels[1]
