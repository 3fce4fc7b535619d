"""The decisions of two people."""

import subprocess
import sys

import pytest

from input_pipeline.curation import merging
from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.curation.order import Order
from input_pipeline.pairs import pairing
from sp_jax.errors import UserError


@pytest.fixture
def people(make_store, tmp_path):
    """Two who agree on pairs 0 to 2 and differ on 3 and 4; bob alone decided 5."""
    store = make_store([0] * 14)
    table = pairing.class_pairs(store, 6, seed=0)

    def decide(name, *steps):
        path = tmp_path / f"pairs.{name}.decisions.csv"
        curation = Curation(table, store, path, person=name)
        curation.decide(*steps)
        return curation

    both = (0, "accept"), (1, "accept"), (2, "reject")
    ann = decide("ann", *both, (3, "accept"), (4, "accept"))
    (other, *_) = ann.partners(4).nonzero()[0]
    bob = decide(
        "bob",
        *both,
        (3, "reject"),
        (4, "swap", int(other)),
        (4, "accept"),
        (5, "reject"),
    )
    return ann, bob


def test_what_is_agreed_on_and_what_is_to_settle(people, tmp_path):
    ann, bob = people
    state, conflicts = merging.merge(people)
    agreed = [ACCEPTED, ACCEPTED, REJECTED, UNDECIDED, UNDECIDED, REJECTED]
    assert state.status.tolist() == agreed
    assert state.by == ["ann and bob"] * 3 + ["", "", "bob"]
    assert conflicts[3] == "ann: accepted, bob: rejected"
    assert "ann: accepted, bob: accepted with class0/" in conflicts[4]
    # Accepted by both, 3 of them; rejected by both, 1; by bob alone, 1: (0.8 - 0.56) / 0.44.
    (sentence,) = merging.agreement(people)
    assert sentence == (
        "ann and bob have both decided 5 pairs, 4 in the same way: Cohen's kappa 0.55."
    )
    path = tmp_path / "merged.csv"
    table, store = ann.table, ann.store
    who = "ann and bob"
    settled = Curation(table, store, path, person="cy", given=state, given_by=who)
    assert Order(settled, only=conflicts).next(9) == [3, 4]
    settled.decide((3, "reject"), (4, "accept"))
    assert settled.undo() and not settled.undo()  # What others decided stays.
    settled.decide((3, "reject"), (4, "accept"))
    state, _ = merging.merge(people)
    again = Curation(table, store, path, person="cy", given=state, given_by=who)
    with pytest.raises(UserError, match="a merge of other people"):
        Curation(table, store, path, given=state, given_by="ann and dan")
    table, columns = again.accepted()
    assert len(table) == 3 and columns["by"] == ["ann and bob", "ann and bob", "cy"]


def test_of_a_conflict_the_partner_that_was_accepted_is_shown(people):
    ann, bob = people
    pair = 5  # ann gives it another partner, and rejects it; bob accepts it as it is.
    (other, *_) = ann.partners(pair).nonzero()[0]
    ann.decide((pair, "swap", int(other)), (pair, "reject"))
    bob.undo()
    bob.decide((pair, "accept"))
    for who in (people, people[::-1]):
        state, conflicts = merging.merge(who)
        assert pair in conflicts and state.second[pair] == ann.table.second[pair]


def test_one_partner_in_two_pairs_is_to_settle(people):
    ann, bob = people
    for person, pair in ((ann, 0), (bob, 1)):
        while person.undo():
            pass
        (free, *_) = person.partners(pair).nonzero()[0]
        person.decide((pair, "swap", int(free)), (pair, "accept"))
    assert list(merging.merge(people)[1]) == [0, 1]


def test_another_persons_file_is_only_read(people):
    ann, _ = people
    path = ann._log.path
    torn = path.read_bytes() + b"time,5,acc"
    path.write_bytes(torn)
    again = Curation(ann.table, ann.store, path, person="ann", only_read=True)
    assert again.state.status.tolist() == ann.state.status.tolist()
    assert path.read_bytes() == torn


def test_two_who_never_disagree(people):
    ann, bob = people
    for person in people:
        while person.undo():
            pass
        person.decide((0, "accept"))
    assert (
        "1 pairs, 1 in the same way: Cohen's kappa is not defined"
        in merging.agreement(people)[0]
    )


@pytest.mark.parametrize(
    "words, wanted",
    [
        (("--merge=a.csv,b.csv",), "--merge needs --pairs"),
        (("--pairs=pairs.csv", "--merge=a.csv"), "of two people or more"),
        (("--pairs=pairs.csv", "--merge=a.csv,b.csv"), "there is no file a.csv"),
        (("--pairs=pairs.csv", "--person=a/b"), "may have letters"),
        (("--pairs=pairs.csv", "--person=merged"), "choose another"),
        (("--pairs=pairs.csv", "--out=pairs.csv"), "would replace the pairs"),
        (("--pairs=pairs.csv", "--out=pairs.decisions.csv"), "would replace the pairs"),
    ],
)
def test_flags_that_do_not_fit(folder, words, wanted):
    path, store, _ = folder
    program = [sys.executable, "-m", "input_pipeline.curate", f"--store={store.name}"]
    words = [word.replace("=pairs", f"={path}/pairs") for word in words]
    program += [*words, f"--data_dir={path / 'data'}", "--port=0"]
    before = (path / "pairs.csv").read_bytes()
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 2 and wanted in done.stderr
    assert (path / "pairs.csv").read_bytes() == before
