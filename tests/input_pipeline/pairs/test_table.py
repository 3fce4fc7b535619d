"""Pair tables: which images are paired, and the CSV file."""

import collections
import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from input_pipeline.pairs.pairing import augmented_pairs, semantic_pairs
from input_pipeline.pairs.table import PairTable, load_table, save_table
from input_pipeline.stores import open_store
from sp_jax.errors import UserError

LABELS = st.lists(st.integers(-1, 6), min_size=2, max_size=60).filter(
    lambda labels: any(labels.count(label) > 1 for label in set(labels) - {-1})
)


@hypothesis.settings(deadline=None, max_examples=150)
@hypothesis.given(labels=LABELS, rounds=st.integers(1, 5), seed=st.integers(0, 2**40))
def test_semantic_pairs(make_store, labels, rounds, seed):
    store = make_store([*labels, 7, 7], size=1)
    table = semantic_pairs(store, rounds=rounds, seed=seed)
    labels = store.labels
    assert np.array_equal(labels[table.first], table.label)
    assert np.array_equal(labels[table.second], table.label)
    assert np.all(table.first != table.second)
    sizes = collections.Counter(labels[labels >= 0].tolist())
    paired = [i for i, label in enumerate(labels) if label >= 0 and sizes[label] > 1]
    # Round 1 comes first: each image once as first and once as second.
    assert sorted(table.first[: len(paired)]) == paired
    assert sorted(table.second[: len(paired)]) == paired
    seen = collections.Counter(
        frozenset(pair)
        for pair in zip(table.first.tolist(), table.second.tolist(), strict=True)
    )
    for label, size in sizes.items():
        mine = {pair: n for pair, n in seen.items() if labels[min(pair)] == label}
        if size == 2:
            assert list(mine.values()) == [2]  # (a, b) and (b, a).
        elif size > 2:
            # Every unordered pair at most once; all of them with enough rounds.
            assert set(mine.values()) == {1}
            steps = min(rounds, size // 2)
            full = size * steps - (size // 2 if 2 * steps == size else 0)
            assert len(mine) == full
            if rounds >= size // 2:
                assert len(mine) == size * (size - 1) // 2
    again = semantic_pairs(store, rounds=rounds, seed=seed)
    assert again.digest == table.digest
    # More rounds only add rows.
    longer = semantic_pairs(store, rounds=rounds + 1, seed=seed)
    assert np.array_equal(longer.second[: len(table)], table.second)


def test_matched_augmented_table(make_store):
    store = make_store([0] * 5 + [1] * 4)
    table = semantic_pairs(store, rounds=2, seed=3)
    matched = augmented_pairs(table, store)
    assert len(matched) == len(table)
    assert np.array_equal(matched.first, table.first)
    assert np.array_equal(matched.second, table.first)
    assert matched.fingerprint == table.fingerprint
    assert matched.digest != table.digest
    assert "matched" in matched.source


def test_lone_images_are_counted_and_seeds_differ(make_store, caplog):
    store = make_store([0, 1, 1, 1, 1, 1, 1, 2, -1, -1])
    with caplog.at_level("WARNING"):
        table = semantic_pairs(store, seed=0)
    assert "2 of 3 classes have only one image" in caplog.text
    assert "left out: class0, class2." in caplog.text
    assert "2 images alone" in table.source
    assert set(table.label) == {1}
    assert table.digest != semantic_pairs(store, seed=1).digest
    # Fixed for ever, as published tables are named by their seed.
    assert table.first.tolist() == FIXED_FIRST
    with pytest.raises(UserError, match="no semantic pairs"):
        semantic_pairs(make_store([0, 1, 2, -1]), seed=0)
    with pytest.raises(UserError, match="rounds"):
        semantic_pairs(store, rounds=0, seed=0)


FIXED_FIRST = [2, 4, 3, 1, 6, 5]


def test_emoji_pairs_join_artists(emoji_dir):
    store = open_store("emoji", "pretrain", data_dir=emoji_dir)
    table = semantic_pairs(store, seed=0)
    artist, _ = store.target("artist")
    assert np.all(artist[table.first] != artist[table.second])
    assert len(table) == len(store)  # No concept has a single drawing.


def test_table_checks_itself():
    good = {"store": "x", "split": "all", "fingerprint": "f", "source": "test"}
    ones = np.ones(3, np.int32)
    for columns, message in [
        ((ones, ones[:2], ones), "differ in length"),
        ((ones, -ones, ones), "negative"),
        ((ones[:0], ones[:0], ones[:0]), "no pairs"),
        ((ones, ones * 0.5, ones), "whole numbers"),
        ((ones[None], ones[None], ones[None]), "one-dimensional"),
    ]:
        with pytest.raises(UserError, match=message):
            PairTable(*columns, **good)
    table = PairTable(ones, ones, ones, **good)
    with pytest.raises(ValueError, match="read-only"):
        table.first[0] = 0
    ones[0] = 5
    assert table.first[0] == 1


@pytest.fixture
def saved(tmp_path, make_store):
    """A store, its table and the table's file."""
    store = make_store([0, 0, 0, 1, 1])
    # A name that CSV must quote.
    store = dataclasses.replace(store, class_names=('one, "two"', "class1"))
    table = semantic_pairs(store, seed=0)
    save_table(tmp_path / "pairs.csv", table, store)
    return store, table, tmp_path / "pairs.csv"


def test_csv_round_trip(saved):
    store, table, path = saved
    text = path.read_text()
    assert text.startswith("# store=tiny\n# split=all\n# fingerprint=")
    assert "first,second,label" in text.splitlines()
    loaded = load_table(path, store)
    assert loaded.digest == table.digest
    assert loaded.source == table.source
    # As a spreadsheet program on Windows writes it.
    path.write_bytes(
        b"\xef\xbb\xbf"
        + text.replace("=tiny", "=tiny,,").replace("\n", "\r\n").encode()
    )
    assert load_table(path, store).digest == table.digest


def in_cr(text):
    return text.replace("\n", "\r").encode()


@pytest.mark.parametrize(
    "write",
    [
        in_cr,
        lambda text: in_cr(text[text.index("first,") :]),
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("first,second,", "first, second,").encode(),
    ],
)
def test_csv_of_other_programs(saved, write):
    store, table, path = saved
    path.write_bytes(write(path.read_text()))
    assert load_table(path, store).digest == table.digest


def test_odd_names_survive_the_table(saved):
    store, table, path = saved
    names = ("a\rb", "c\nd", "#\r\n", "\udcff\u2028ä", "e,\"f'")
    store = dataclasses.replace(store, ids=names)
    table = dataclasses.replace(table, fingerprint=store.fingerprint)
    save_table(path, table, store)
    assert load_table(path, store).digest == table.digest


def test_names_in_another_unicode_form(saved):
    """A Mac's é is two characters; a name that could stand for two is not guessed."""
    store, _, path = saved
    names = ("caf\u00e9", "the\u0301", "a", "\u00e8", "e\u0300")
    store = dataclasses.replace(store, ids=names, class_names=("\u00e4", "b"))
    path.write_text("first,second,label\ncafe\u0301,th\u00e9,a\u0308\n")
    table = load_table(path, store)
    assert [*table.first, *table.second, *table.label] == [0, 1, 0]
    path.write_text("first,second,label\n\u00e8,e\u0300,\n")
    table = load_table(path, store)
    assert [*table.first, *table.second] == [3, 4]
    path.write_text("first,second,label\na,e\u0340,\n")  # è in a third form.
    with pytest.raises(UserError, match="line 2: .*no image"):
        load_table(path, store)


@pytest.mark.parametrize(
    "content, message",
    [
        (b'"first,second,label\na,b,c\n', "pairs.csv, line 1.* quotation mark"),
        (b'first,second,label\n"a,b,c\nd,e,f\n', "pairs.csv, line 2.* quotation mark"),
        (b'first,second,label\n"a\n",b,c\n', "line 2: .*no image .* quotation mark"),
        (b"first,second,label\na\n", "line 2: the row has no column second, label"),
        (b"first,second,label\n,b,c\n", r"line 2: .*no image '' \(column first\)"),
        (b"first,second,label\ncaf\xe9,b,c\n", "line 2: .*save the file as UTF-8"),
        ("first,second,label\n".encode("utf-16-le"), "pairs.csv is neither UTF-8 nor"),
        ("first,second,label\n".encode("utf-32"), "pairs.csv is neither UTF-8 nor"),
        ("first,".encode("utf-16")[:-1], "pairs.csv is neither UTF-8 nor"),
        (b"first;second;label\na;b;c\n", "must be first,second,label"),
    ],
)
def test_csv_that_is_damaged(saved, content, message):
    store, _, path = saved
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_table(path, store)
    assert len(str(caught.value)) < 500 + len(str(path))


def test_csv_by_hand(saved):
    store, table, path = saved
    path.write_text(
        "label,why,first,second\n"
        ",alike,class0/0.png,class0/2.png\n"
        "# no,,class0/0.png,class0/1.png\n"
        "class9,alike,class1/3.png,class0/2.png\n"
    )
    with pytest.raises(UserError, match="line 4.*no class 'class9'"):
        load_table(path, store)
    path.write_text(
        "first,second,label\nclass0/0.png,class0/2.png,\n#class0/0.png,class0/1.png,\n"
    )
    loaded = load_table(path, store)
    assert (loaded.first.tolist(), loaded.second.tolist()) == ([0], [2])
    assert loaded.label.tolist() == [0] and loaded.fingerprint == store.fingerprint
    assert loaded.source == "file pairs.csv"


def test_csv_errors(saved, make_store):
    store, table, path = saved
    text = path.read_text()
    with pytest.raises(UserError, match="Cannot read .*missing.csv"):
        load_table(path.with_name("missing.csv"), store)
    path.write_text(text.replace("first,second,label", "first,other,label"))
    with pytest.raises(UserError, match="lacks the column second"):
        load_table(path, store)
    path.write_text("")
    with pytest.raises(UserError, match="lacks the column first, second, label"):
        load_table(path, store)
    lines = text.splitlines()
    lines[8] = lines[8].replace("class0/", "class9/", 1)
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"line 9: .*no image 'class9/\d.png'"):
        load_table(path, store)
    lines = text.splitlines()
    lines[8] = lines[8].split(",")[0]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"line 9: .*column second"):
        load_table(path, store)
    lines = text.splitlines()
    lines[8] = '"' + lines[8] + "x" * 140_000
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="quotation mark"):
        load_table(path, store)
    other = make_store([0, 0, 0, 1, 1, 1], name="other")
    path.write_text(text)
    with pytest.raises(UserError, match="made for store 'tiny', split 'all'.*'other'"):
        load_table(path, other)
    with pytest.raises(UserError, match="made for store 'tiny'"):
        save_table(path, table, other)
    header = "\n".join(text.splitlines()[:7])
    path.write_text(header)
    with pytest.raises(UserError, match="no pairs"):
        load_table(path, store)


def test_paths_of_a_curated_list(tmp_path):
    root = tmp_path / "pictures"
    for name in ("cat/a.png", "cat/b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(root / name)
    store = open_store(f"folder:{root}", image_size=8, data_dir=tmp_path / "data")
    path = tmp_path / "pairs.csv"
    path.write_text(f"first,second,label\n{root}/cat/a.png,cat/../cat/b.png,cat\n")
    table = load_table(path, store)
    assert (table.first.tolist(), table.second.tolist()) == ([0], [1])
    for outside in ("../secret.png", "/etc/passwd", f"{root}/../x.png"):
        path.write_text(f"first,second,label\ncat/a.png,{outside},\n")
        with pytest.raises(UserError, match="line 2: .* outside the store's folder"):
            load_table(path, store)
