"""The decisions of several people on the same pairs: their agreement and conflicts."""

import itertools
from collections.abc import Sequence

import numpy as np

from input_pipeline.curation.decisions import ACCEPTED, UNDECIDED, Curation, State
from sp_jax import extras

WORDS = ("undecided", "accepted", "rejected")  # By status.


def merge(people: Sequence[Curation]) -> tuple[State, dict[int, str]]:
    """The decisions that people share, and their conflicts.

    If one person has not decided a pair, the others decide it. Two different partners of an
    accepted pair are a conflict, too, and so is a new partner that is in another pair.

    Args:
      people: their decisions on one table, each with a name.

    Returns:
      The state, in which conflicts and pairs that nobody decided are undecided; and for each
      pair with a conflict the opinions on it, in words.
    """
    status = np.stack([person.state.status for person in people])
    second = np.stack([person.state.second for person in people])
    decided, accepted = status != UNDECIDED, status == ACCEPTED
    count = status.shape[1]
    first = decided.argmax(0), np.arange(count)  # The first one who has decided.
    differ = (decided & (status != status[first])).any(0)
    differ |= (accepted & (second != second[first])).any(0)
    table, stands = people[0].table, status[first] == ACCEPTED
    uses = np.bincount(np.concatenate([table.first[stands], second[first][stands]]))
    chosen = stands & (second[first] != table.second)
    differ[chosen] |= uses[second[first][chosen]] > people[0].max_uses
    state = State(
        np.where(differ, UNDECIDED, status[first]).astype(np.int8),
        # Of a conflict, the partner that somebody has accepted.
        second[np.where(accepted.any(0), accepted.argmax(0), first[0]), first[1]],
        [""] * count,
        [""] * count,
    )
    for pair in np.flatnonzero(state.status != UNDECIDED):
        who = [people[i] for i in np.flatnonzero(decided[:, pair])]
        state.by[pair] = " and ".join(person.person for person in who)
        state.when[pair] = max(person.state.when[pair] for person in who)
    conflicts = {int(pair): _opinions(people, pair) for pair in np.flatnonzero(differ)}
    return state, conflicts


def _opinions(people: Sequence[Curation], pair: int) -> str:
    words = []
    for person in people:
        status, second, *_ = person.state.at(pair)
        swapped = status == ACCEPTED and second != person.table.second[pair]
        partner = f" with {person.store.ids[second]}" if swapped else ""
        words.append(f"{person.person}: {WORDS[status]}{partner}")
    return ", ".join(words)


def agreement(people: Sequence[Curation]) -> list[str]:
    """A sentence on every two people: Cohen's kappa of the pairs that both have decided."""
    extras.require("eval", "The agreement of two people")
    from sklearn.metrics import cohen_kappa_score

    sentences = []
    for one, other in itertools.combinations(people, 2):
        a, b = one.state.status, other.state.status
        both = (a != UNDECIDED) & (b != UNDECIDED)
        a, b = a[both], b[both]
        if len(np.unique([a, b])) > 1:
            kappa = f"Cohen's kappa {cohen_kappa_score(a, b):.2f}"
        else:  # All are accepted, or none has been decided by both.
            kappa = "Cohen's kappa is not defined"
        sentences.append(
            f"{one.person} and {other.person} have both decided {both.sum():,} pairs, "
            f"{(a == b).sum():,} in the same way: {kappa}."
        )
    return sentences
