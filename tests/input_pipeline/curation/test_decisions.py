"""Decisions on pairs: saved at once, undone, replayed after a crash."""

import dataclasses
import resource

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from input_pipeline import pairs
from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.pairs import pairing
from sp_jax.errors import UserError


@pytest.fixture(scope="module")
def store(make_store):
    """Two classes of eight and of seven images."""
    return make_store([0] * 8 + [1] * 7)


@pytest.fixture(scope="module")
def table(store):
    """Three pairs a class: two free images in the first class, one in the second."""
    return pairing.class_pairs(store, 3, seed=0)


def state(curation):
    return [list(column) for column in curation.state]


def swap(curation, pair):
    """The step that gives a pair its next free partner; None without one."""
    free = np.flatnonzero(curation.partners(pair))
    return (pair, "swap", int(free[0])) if len(free) else None


SHEETS = st.lists(  # Decisions that are kept and undone together; of none, an undo.
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["accept", "reject", "swap"])),
        max_size=3,
        unique_by=lambda step: step[0],
    ),
    max_size=25,
)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(sheets=SHEETS)
def test_undo_and_reopening(store, table, tmp_path_factory, sheets):
    path = tmp_path_factory.mktemp("log") / "decisions.csv"
    curation, states = Curation(table, store, path), []
    for sheet in sheets:
        before = state(curation)
        if not sheet:
            undone = curation.undo()
            assert bool(undone) == bool(states)
            if states:
                assert all(undone[pair] == before[0][pair] for pair in undone)
                assert state(curation) == states.pop()
            continue
        steps = [s if s[1] != "swap" else swap(curation, s[0]) for s in sheet]
        if None in steps:
            continue
        try:
            curation.decide(*steps)
        except UserError as error:
            assert "another pair" in str(error) and state(curation) == before
            continue
        states.append(before)
        assert curation.uses().max() <= 1  # No image stands in two pairs.
        labels = store.labels[table.first], store.labels[curation.state.second]
        assert np.array_equal(*labels)
    assert state(Curation(table, store, path)) == state(curation)
    again = Curation(table, store, path)
    while states:
        again.undo()
        assert state(again) == states.pop()


def test_a_torn_line_is_dropped_and_other_pairs_are_refused(store, table, tmp_path):
    path = tmp_path / "decisions.csv"
    curation = Curation(table, store, path)
    curation.decide((0, "accept"))
    curation.decide(swap(curation, 1))
    kept = path.read_bytes()
    curation.decide((1, "reject"))
    path.write_bytes(path.read_bytes()[:-5])
    again = Curation(table, store, path)
    assert path.read_bytes() == kept and ",1,reject,class0/" in again.dropped
    assert not Curation(table, store, path).dropped
    assert again.state.status[:2].tolist() == [ACCEPTED, UNDECIDED]
    assert again.state.second[1] == curation.state.second[1] != table.second[1]
    again.undo()
    assert again.state.second[1] == table.second[1]
    torn = kept + b"time,1,swap,class0/1"  # Of class0/1.png, or of class0/11.png.
    path.write_bytes(torn)
    assert Curation(table, store, path).dropped == "time,1,swap,class0/1"
    assert path.read_bytes() == kept
    # Nothing is taken out of a log that is damaged elsewhere.
    torn = kept.replace(b",swap,", b",swop,") + b"time"
    path.write_bytes(torn)
    with pytest.raises(UserError, match="line 4: .* is not a decision"):
        Curation(table, store, path)
    assert path.read_bytes() == torn
    for cut in (0, 5, 50):  # Within the first lines: nothing was decided.
        path.write_bytes(kept[:cut])
        assert not Curation(table, store, path).state.status.any()
    path.write_bytes(kept)
    with pytest.raises(UserError, match="decisions on other pairs"):
        Curation(pairing.class_pairs(store, 2, seed=0), store, path)


def test_a_log_that_another_program_has_saved(store, table, tmp_path):
    """Without the last line end, or as a spreadsheet program on Windows writes it."""
    path = tmp_path / "decisions.csv"
    curation = Curation(table, store, path)
    curation.decide(swap(curation, 0))
    for pair, action in ((1, "accept"), (0, "reject"), (0, "accept")):
        curation.decide((pair, action))
    curation.undo()
    kept, wanted = path.read_bytes(), state(curation)
    for cut in (1, len(kept) - kept[:-1].rfind(b"\n")):  # An undo, a decision.
        path.write_bytes(kept[:-cut])
        again = Curation(table, store, path)
        assert again.dropped == "" and path.read_bytes() == kept[: len(kept) - cut + 1]
    path.write_bytes(kept.replace(b"\ntime,", b",,,\ntime,").replace(b"\n", b"\r\n"))
    again = Curation(table, store, path)
    assert state(again) == wanted
    again.decide((2, "reject"))
    assert state(Curation(table, store, path)) == state(again)
    path.write_bytes(kept.decode().encode("utf-8-sig"))
    assert state(Curation(table, store, path)) == wanted
    path.write_bytes(kept.decode().encode("utf-16"))
    with pytest.raises(UserError, match="or another program has changed its first"):
        Curation(table, store, path)


def test_a_full_disk_changes_nothing(store, table, tmp_path):
    path = tmp_path / "decisions.csv"
    curation = Curation(table, store, path)
    curation.decide((0, "accept"))
    kept = path.read_bytes(), state(curation)
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for action in (lambda: curation.decide((1, "accept")), curation.undo):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept[0]) + 22, hard))
        try:
            with pytest.raises(UserError, match="decisions.csv cannot .*: make room"):
                action()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        assert (path.read_bytes(), state(curation)) == kept
    curation.decide((1, "reject"))
    assert state(Curation(table, store, path)) == state(curation)


@pytest.mark.parametrize(
    "lines",
    [
        "time,1,accept,class0/time,1,accept,class0/0.png",  # Torn, then another one.
        "time,1,accept",
        "",
        "time,one,accept,class0/0.png",
        "time,6,accept,class0/0.png",
        "time,-1,accept,class0/0.png",
        "time,1,burn,class0/0.png",
        "time,1,accept,nobody.png",
        'time,1,accept,"class0/0.png',
        "time,1,undo,",
        "time,1,accept,PARTNER\ntime,2,undo,",
        "time,1,accept,class0/0.png",  # Not what was shown.
    ],
)
def test_a_line_that_is_no_decision_is_named(store, table, tmp_path, lines):
    path = tmp_path / "decisions.csv"
    Curation(table, store, path)
    lines = lines.replace("PARTNER", store.ids[table.second[1]])
    with open(path, "a") as file:
        file.write(f"{lines}\ntime,0,accept,class0/1.png\n")
    number = 3 + lines.count("\n")
    with pytest.raises(
        UserError, match=f"decisions.csv, line {number}: .*: correct or"
    ):
        Curation(table, store, path)


def test_odd_names_survive_the_log(make_store, tmp_path):
    names = ("a\rb", "c\nd", "c\\nd", 'e,"f', "\udcff\u2028ä", "#\r\n")
    store = dataclasses.replace(make_store([0] * 6), ids=names)
    rows = np.arange(6)
    table = pairs.PairTable.of(store, rows, np.roll(rows, 1), "by hand")
    path = tmp_path / "decisions.csv"
    curation = Curation(table, store, path)
    for pair in range(6):
        kept = path.read_bytes()
        curation.decide((pair, "accept"))
        assert path.read_bytes().count(b"\n") == kept.count(b"\n") + 1
    assert state(Curation(table, store, path)) == state(curation)


def test_a_log_that_cannot_be_written(store, table, tmp_path):
    with pytest.raises(UserError, match="Cannot save decisions in .*: make room, or"):
        Curation(table, store, tmp_path / "nowhere" / "decisions.csv")


def test_a_log_of_an_older_version(store, table, tmp_path):
    """Times without a fraction: decisions of one second are undone one by one."""
    path = tmp_path / "decisions.csv"
    time, (first, *_) = "2026-01-02T03:04:05", table.second
    names = [store.ids[row] for row in table.second]
    other = next(i for i in store.ids[:8] if i not in names and i != store.ids[first])
    path.write_text(
        f"# decisions on the pairs {table.digest}\ntime,pair,action,second\n"
        f"{time},0,swap,{other}\n{time},0,accept,{other}\n{time},1,reject,{names[1]}\n"
        f"{time},1,undo,\n{time},2,reject,{names[2]}\n"
    )
    curation = Curation(table, store, path)
    kept = curation.state
    assert kept.status[:3].tolist() == [ACCEPTED, UNDECIDED, REJECTED]
    assert store.ids[kept.second[0]] == other and kept.when[0] == time
    assert curation.undo() == {2: REJECTED} and curation.undo() == {0: ACCEPTED}
    assert store.ids[kept.second[0]] == other
    assert curation.undo() == {0: UNDECIDED} and kept.second[0] == first


def test_partners(make_store, tmp_path):
    """Each image with itself: a partner is of its class, and in no other pair."""
    store = make_store([0] * 4 + [1] * 3 + [-1])
    rows = np.arange(len(store))
    table = pairs.PairTable.of(store, rows, rows, "by a person")
    curation = Curation(table, store, tmp_path / "log", making=True, person="ann")
    for step, wanted in (
        ((0, "accept"), "no partner yet"),
        ((0, "swap", 0), "cannot be the partner"),
        ((0, "swap", 4), "cannot be the partner"),
        ((0, "swap", 99), "cannot be the partner"),
        ((7, "swap", 0), "no label"),
        ((0, "burn"), "no action"),
        ((8, "accept"), "no pair 8 of 8"),
    ):
        with pytest.raises(UserError, match=wanted):
            curation.decide(step)
    curation.decide((0, "swap", 2), (0, "accept"))
    assert np.flatnonzero(curation.partners(1)).tolist() == [3]
    with pytest.raises(UserError, match="is now in another pair"):
        curation.decide((2, "swap", 3), (2, "accept"))
    twice = Curation(table, store, tmp_path / "log", making=True, max_uses=2)
    assert np.flatnonzero(twice.partners(1)).tolist() == [0, 2, 3]
    made, columns = curation.accepted()
    assert (made.first.tolist(), made.second.tolist()) == ([0], [2])
    assert columns["by"] == ["ann"] and columns["time"][0].startswith("20")
    assert curation.undo() == {0: ACCEPTED} and not curation.state.status.any()
    assert curation.state.second.tolist() == rows.tolist()


def test_no_pair_is_made_twice(make_store, tmp_path):
    store = make_store([0] * 4)
    rows = np.arange(4)
    given = pairs.PairTable.of(store, rows, rows, "by a person")
    making = Curation(given, store, tmp_path / "making", making=True, max_uses=2)
    making.decide((0, "swap", 1), (0, "accept"))
    assert np.flatnonzero(making.partners(1)).tolist() == [2, 3]
    given = pairs.PairTable.of(store, np.array([0, 0]), np.array([1, 2]), "two")
    checking = Curation(given, store, tmp_path / "checking", max_uses=2)
    assert np.flatnonzero(checking.partners(1)).tolist() == [3]
