"""Stores that are modules outside the repository."""

import os
import pathlib
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from eval.task import TaskOptions, open_task
from input_pipeline import pairs
from input_pipeline.pairs import pairing
from input_pipeline.stores import find_splits, open_store
from sp_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]
# Two classes of plain images; of an argument as many in each, else four.
STORE = """
    import numpy as np

    from input_pipeline.stores.image_source import Source, make_meta

    def scan(argument):
        count = 2 * int(argument or 4)
        ids = [f"{row:02d}" for row in range(count)]
        classes = ["light" if row % 2 else "dark" for row in range(count)]
        splits = {"train": list(range(count // 2)), "test": list(range(count // 2, count))}

        def read(row):
            return np.full((9, 12, 3), 20 * row + row % 2, np.uint8)

        def read_alpha(ids, size):
            return np.full((len(ids), size, size), 255, np.uint8), np.zeros((len(ids), 3))

        return Source(
            name="own",
            key=f"1 {count}",
            meta=lambda: make_meta(ids, classes, splits),
            open_reader=lambda: read,
            read_alpha=read_alpha,
        )
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with a package of stores."""
    (tmp_path / "mystores").mkdir()
    (tmp_path / "mystores" / "plain.py").write_text(textwrap.dedent(STORE))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mystores"]:
        del sys.modules[name]


def test_a_store_by_its_import_path(folder):
    options = {"image_size": 8, "data_dir": folder / "data"}
    store = open_store("mystores.plain", **options)
    assert len(store) == 8 and store.class_names == ("dark", "light")
    assert store.read([0, 7])[:, 0, 0, 0].tolist() == [0, 141]
    assert store.read_alpha is not None and store.root is None
    part = open_store("mystores.plain:2", "train", **options)
    assert part.ids == ("00", "01")
    assert find_splits("mystores.plain", **options) == ["train", "test"]
    table = pairing.semantic_pairs(store, seed=0)
    pairs.save_table(folder / "pairs.csv", table, store)
    assert pairs.load_table(folder / "pairs.csv", store).digest == table.digest
    splits = {"train_split": "train", "test_split": "test"}
    task = open_task(TaskOptions(dataset="mystores.plain", **splits, **options))
    assert task.num_classes == 2 and len(task.test_rows) == 4


def program(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SP_JAX_DATA": str(folder / "data"),
        },
        capture_output=True,
        text=True,
    )


def test_programs_take_it_from_the_users_folder(folder):
    words = ("--store=mystores.plain:3", "--image_size=8")
    done = program(folder, "input_pipeline.prepare", *words, "--out=out")
    assert done.returncode == 0, done.stderr
    assert len(open_store(f"array_record:{folder / 'out'}", image_size=8)) == 6
    done = program(folder, "input_pipeline.build_pairs", *words, "--out=pairs.csv")
    assert done.returncode == 0, done.stderr
    (folder / "mystores" / "broken.py").write_text("def scan():\n    pass\n")
    config = f"--config={ROOT / 'configs' / 'quickstart.py'}"
    words = ("sp_jax.main", config, "--config.data.store=mystores.broken")
    done = program(folder, *words)
    assert done.returncode == 2, done.stderr
    assert "mystores.broken" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "module, said",
    [
        ("", "'mystores.broken' .*broken.py. needs a function scan"),
        ("def scan():\n    pass", "needs a function scan.*too many positional"),
        ("scan = 5", "needs a function scan"),
        (
            "def scan(argument):\n    pass",
            "scan returns NoneType, not an image_source.So",
        ),
        ("import nothing_of_that_name", "mystores.broken"),
        (
            STORE.replace("meta=lambda: make_meta(ids, classes, splits)", "meta=dict"),
            "own: the meta data of its Source must have the form .*make_meta",
        ),
        (
            STORE.replace("np.full((9, 12, 3)", "np.full((9, 12)"),
            r"own: .* returns ndarray uint8 \[9, 12\]: .* bytes, or uint8 \[H, W, 3\]",
        ),
    ],
)
def test_a_module_that_does_not_fit(folder, module, said):
    (folder / "mystores" / "broken.py").write_text(textwrap.dedent(module))
    with pytest.raises(UserError, match=said):
        open_store("mystores.broken", image_size=8, data_dir=folder / "data")


@pytest.mark.parametrize(
    "name, said",
    [
        ("floder:x", "no store 'floder'; choose one of: folder:DIR, emoji, "),
        ("mystores.nothing", "'mystores.nothing'"),
        ("folder", "no store 'folder': write it as folder:DIR"),
        ("emoji:x", "no store 'emoji:x': write it as emoji"),
        ("array_record", "write it as array_record:DIR"),
        (".", r"\. is a folder, not a store: write folder:\., or images:\."),
    ],
)
def test_names_of_no_store(folder, name, said):
    with pytest.raises(UserError, match=said):
        open_store(name, data_dir=folder)


def test_pixels_go_to_worker_processes_without_the_module(folder):
    store = open_store("mystores.plain", "test", image_size=8, data_dir=folder / "data")
    sent = pickle.dumps(store.images)
    assert b"mystores" not in sent
    assert np.array_equal(pickle.loads(sent)[np.arange(4)], store.read(np.arange(4)))


def test_the_example_of_the_documentation(folder):
    text = (ROOT / "docs" / "data.md").read_text()
    (code,) = [part for part in text.split("```python\n")[1:] if "def scan" in part]
    (folder / "mystores" / "scans.py").write_text(code.partition("```")[0])
    for i in range(4):
        Image.new("RGB", (9, 9), (i, 0, 0)).save(folder / f"{'ab'[i % 2]}_{i}.png")
    name = f"mystores.scans:{folder}"
    store = open_store(name, "test", image_size=8, data_dir=folder / "data")
    assert store.ids == ("b_1.png", "b_3.png") and store.class_names == ("a", "b")


def test_two_images_of_one_id(folder):
    path = folder / "mystores/plain.py"
    path.write_text(path.read_text().replace("{row:02d}", "{row // 2}.png"))
    with pytest.raises(UserError, match="4 ids belong to several images, such as '0"):
        open_store("mystores.plain", image_size=8, data_dir=folder / "data")
