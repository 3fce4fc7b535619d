"""Decisions on pairs: kept at once, undone, repeated after a crash."""

import dataclasses
import re
import resource
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from input_pipeline import pairs
from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.pairs import pairing
from input_pipeline.stores import open_store
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
    return curation.status.tolist(), curation.second.tolist()


ACTIONS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["accept", "reject", "swap", "undo"])),
    max_size=25,
)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(actions=ACTIONS)
def test_undo_and_reopening(store, table, tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("log") / "decisions.csv"
    curation, states = Curation(table, store, path), []
    for pair, action in actions:
        before = state(curation)
        if action == "undo":
            undone = curation.undo()
            assert (undone is None) == (not states)
            if states:
                assert state(curation) == states.pop()
            continue
        try:
            curation.decide(pair, action)
        except UserError as error:
            assert "is in a pair" in str(error) and state(curation) == before
            continue
        states.append(before)
        # No image comes into two pairs that stand.
        stand = curation.status != REJECTED
        rows = [*table.first[stand], *curation.second[stand]]
        if "reject" not in [a for _, a in actions]:
            assert len(set(rows)) == len(rows)
        labels = store.labels[table.first], store.labels[curation.second]
        assert np.array_equal(*labels)
    assert state(Curation(table, store, path)) == state(curation)


def test_a_torn_line_is_dropped_and_other_pairs_are_refused(store, table, tmp_path):
    path = tmp_path / "decisions.csv"
    curation = Curation(table, store, path)
    curation.decide(0, "accept")
    curation.decide(1, "swap")
    kept = path.read_bytes()
    curation.decide(1, "reject")
    path.write_bytes(path.read_bytes()[:-5])
    again = Curation(table, store, path)
    assert path.read_bytes() == kept and ",1,reject,class0/" in again.dropped
    assert not Curation(table, store, path).dropped
    assert again.status[:2].tolist() == [ACCEPTED, UNDECIDED]
    assert again.second[1] == curation.second[1] != table.second[1]
    again.undo()
    assert again.second[1] == table.second[1]
    torn = kept + b"time,1,swap,class0/1"  # Of class0/1.png, or of class0/11.png.
    path.write_bytes(torn)
    assert Curation(table, store, path).dropped == "time,1,swap,class0/1"
    assert path.read_bytes() == kept
    # Nothing is taken out of a log that is damaged elsewhere.
    torn = kept.replace(b",swap,", b",swop,") + b"time"
    path.write_bytes(torn)
    with pytest.raises(UserError, match="line 4: .* is no decision"):
        Curation(table, store, path)
    assert path.read_bytes() == torn
    path.write_bytes(kept)
    with pytest.raises(UserError, match="decisions on other pairs"):
        Curation(pairing.class_pairs(store, 2, seed=0), store, path)


def test_a_log_that_another_program_has_saved(store, table, tmp_path):
    """Without the last line end, or as a spreadsheet program on Windows writes it."""
    path = tmp_path / "decisions.csv"
    curation = Curation(table, store, path)
    curation.decide(0, "swap")
    for pair, action in ((1, "accept"), (0, "reject"), (0, "accept")):
        curation.decide(pair, action)
    curation.undo()
    kept, wanted = path.read_bytes(), state(curation)
    for cut in (1, len(kept) - kept[:-1].rfind(b"\n")):  # An undo, a decision.
        path.write_bytes(kept[:-cut])
        again = Curation(table, store, path)
        assert again.dropped == "" and path.read_bytes() == kept[: len(kept) - cut + 1]
    path.write_bytes(kept.replace(b"\ntime,", b",,,\ntime,").replace(b"\n", b"\r\n"))
    again = Curation(table, store, path)
    assert state(again) == wanted
    again.decide(2, "reject")
    assert state(Curation(table, store, path)) == state(again)
    path.write_bytes(kept.decode().encode("utf-8-sig"))
    assert state(Curation(table, store, path)) == wanted
    path.write_bytes(kept.decode().encode("utf-16"))
    with pytest.raises(UserError, match="or another program has changed its first"):
        Curation(table, store, path)


def test_a_full_disk_changes_nothing(store, table, tmp_path):
    path = tmp_path / "decisions.csv"
    curation = Curation(table, store, path)
    curation.decide(0, "accept")
    kept = path.read_bytes(), state(curation)
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for action in (lambda: curation.decide(1, "accept"), curation.undo):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept[0]) + 22, hard))
        try:
            with pytest.raises(UserError, match="decisions.csv cannot .*: make room"):
                action()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        assert (path.read_bytes(), state(curation)) == kept
    curation.decide(1, "reject")
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
        curation.decide(pair, "accept")
        assert path.read_bytes().count(b"\n") == kept.count(b"\n") + 1
    assert state(Curation(table, store, path)) == state(curation)


def test_a_log_that_cannot_be_written(store, table, tmp_path):
    with pytest.raises(UserError, match="Cannot keep decisions in .*: make room, or"):
        Curation(table, store, tmp_path / "nowhere" / "decisions.csv")


def test_a_kill_loses_no_decision(tmp_path):
    program = """
        import os, signal, sys
        import numpy as np
        from input_pipeline.pairs import pairing
        from input_pipeline.curation.decisions import Curation
        from input_pipeline.stores import open_store
        store = open_store("emoji", "pretrain", data_dir=sys.argv[1])
        table = pairing.semantic_pairs(store, seed=0)
        curation = Curation(table, store, sys.argv[2])
        for pair in range(5):
            curation.decide(pair, "accept" if pair % 2 else "reject")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    program = re.sub("^        ", "", program, flags=re.MULTILINE)
    log = tmp_path / "log.csv"
    subprocess.run([sys.executable, "-c", program, str(tmp_path), str(log)])
    store = open_store("emoji", "pretrain", data_dir=tmp_path)
    curation = Curation(pairing.semantic_pairs(store, seed=0), store, log)
    want = [REJECTED, ACCEPTED, REJECTED, ACCEPTED, REJECTED, UNDECIDED]
    assert curation.status[:6].tolist() == want
    assert curation.next_undecided() == 5
