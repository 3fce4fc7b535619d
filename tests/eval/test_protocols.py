"""Each option that can change a number shows in the protocol, or in the images."""

import dataclasses
import types

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import eval as evals
import sp_jax
from eval import task
from eval.options import defaults_of
from sp_jax.errors import UserError

# Options that no protocol tells.
ELSEWHERE = {
    "image_size": "makes other pixels: the fingerprints of the images tell it",
    "resize": "likewise",
    "max_skipped": "which images are left out: the fingerprints tell it",
    "data_dir": "where prepared images are kept",
}
# What is measured by other options than all, and which ones it does not look at.
PARTS = {
    "linear_probe": [
        ({"protocol": "sweep"}, {"recipe"}),
        (
            {"protocol": "lbfgs"},
            {"recipe", "scalings", "learning_rates", "epochs", "batch_size"},
        ),
        (
            {"protocol": "paper"},
            {"scalings", "learning_rates", "weight_decays", "validation", "tokens"},
        ),
    ],
    "retrieval": [
        ({"protocol": "across"}, set()),
        ({"protocol": "leave_one_out"}, {"across"}),
    ],
}
WORDS = {
    "dataset": ("one", "folder:one"),
    "train_split": ("train", "more"),
    "test_split": ("test", "val"),
    "split": ("train", "test"),
    "splits": (("train",), ("test",), ("train", "test")),
    "target": ("label", "artist"),
    "match": ("label", "style"),
    "across": ("artist", "hand"),
    "protocol": ("sweep", "lbfgs", "paper", "across", "leave_one_out"),
    "tokens": ("cls", "cls4", "mean"),
    "recipe": (None, "simclr", "byol"),
    "scalings": (("raw",), ("standardized",), ("raw", "standardized")),
    "amounts": (("10%",), ("5",), ("5", "10%"), ("4",)),
    "other": ("runs/a", "runs/b"),
}


def values_of(option, default):
    """Two different values of an option."""
    if option in WORDS:
        one = st.sampled_from(WORDS[option])
    else:
        several = isinstance(default, tuple)
        number = default[0] if several else default
        whole = isinstance(number, int)
        one = st.integers(2, 30) if whole else st.floats(0.001, 0.9)
        if several:
            one = st.lists(one, min_size=1, max_size=3, unique=True).map(tuple)
    two = st.tuples(one, one)
    if isinstance(default, float):
        two |= one.map(lambda x: (x, x * (1 - 1e-9)))
    return two.filter(lambda two: two[0] != two[1])


def cases():
    """Evaluator, its other options, and an option with its default."""
    for name in evals.NAMES:
        kind = evals.get(name).Options
        defaults = defaults_of(kind)
        options = [field.name for field in dataclasses.fields(kind)]
        needed = "train_split", "test_split"  # they have defaults
        base = {o: WORDS[o][0] for o in options if o in needed or o not in defaults}
        base |= {"splits": ("train",)} if "splits" in options else {}
        for part, unused in PARTS.get(name, [({}, set())]):
            for option in options:
                if option not in unused | set(ELSEWHERE):
                    words = [name, *part.values(), option]
                    other = {"test_split": None} if option == "holdout" else {}
                    yield pytest.param(
                        *(name, base | part | other, option, defaults.get(option)),
                        id="-".join(words),
                    )


@pytest.fixture
def stores(make_store, monkeypatch):
    """Any name and any split is a store of 60 images."""

    def open_store(name, split, **_):
        labels, artist = np.arange(60) % 30, np.arange(60) // 30
        own = {"artist": artist, "hand": 1 - artist, "style": labels // 2}
        shape = 60, 32, 32, 3
        values = np.random.default_rng(len(split)).integers(0, 255, shape)
        store = make_store(values, labels, split, **own)
        return dataclasses.replace(store, name=name)

    def load(path):
        found = types.SimpleNamespace(info={"step": 7})
        found.identity = lambda: f"{path} weights"
        return found

    monkeypatch.setattr(task, "open_store", open_store)
    monkeypatch.setattr(sp_jax, "load", load)


@pytest.mark.parametrize("name, base, option, default", [*cases()])
@hypothesis.settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.filter_too_much,
    ],
)
@hypothesis.given(data=st.data())
def test_two_values_of_an_option_are_two_questions(
    stores, name, base, option, default, data
):
    told = []
    values = data.draw(values_of(option, default))
    for value in values:
        try:
            evaluate = evals.make(name, base | {option: value})
        except UserError:  # it does not fit the other options
            hypothesis.assume(False)
        told.append((evaluate.protocol, evaluate.fingerprints()))
    assert told[0] != told[1], values
