"""Embeddings: all formats give the same bits, a kill changes nothing, the page shows images."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eval import embed, embedding_files
from sp_jax import models, weights
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor

ROOT = pathlib.Path(__file__).parents[2]


class Network:
    """The pixels of the images, each scaled; it counts what it sees."""

    info = {"step": 3}

    def __init__(self, scale=1 / 7, stop=None):
        self.scale, self.stop, self.calls = scale, stop, 0

    def identity(self):
        return str(self.scale)

    def __call__(self, images):
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        return images.reshape(len(images), -1) * np.float32(self.scale)


@pytest.fixture
def store(blobs, monkeypatch):
    """60 images in four parts, the last of which is no whole batch."""
    monkeypatch.setattr(embed, "PART", 16)
    return blobs("train", 0)


def run(store, out, **network):
    network = Network(**network)
    embed.embed(Extractor(network, batch_size=8), store, out, "RUN")
    return network


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv"])
def test_all_forms_hold_the_same(suffix, store, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / "new" / f"a{suffix}"
    run(store, out)
    features = embedding_files.read_features(out, 60)
    expected = store.images.reshape(60, -1) * np.float32(1 / 7)
    np.testing.assert_array_equal(features, expected)
    assert features.dtype == np.float32 and features.flags.c_contiguous
    assert sorted(p.name for p in out.parent.iterdir()) == [
        out.name,
        f"{out.name}.json",
    ]
    content = out.read_bytes()
    out.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is damaged .*embed again"):
        embedding_files.read_features(out, 60)


def test_a_kill_changes_nothing(store, tmp_path, capsys):
    whole, out = tmp_path / "whole.npz", tmp_path / "a.npz"
    assert run(store, whole).calls == 8
    with pytest.raises(KeyboardInterrupt):
        run(store, out, stop=5)  # in the third part of four
    assert not out.exists()
    with pytest.raises(UserError, match="is of other weights: RUN, step 3, on tiny"):
        run(store, out, scale=2.0)
    assert run(store, out).calls == 4
    assert out.read_bytes() == whole.read_bytes()
    assert run(store, out).calls == 0
    assert "exists already" in capsys.readouterr().out
    with pytest.raises(UserError, match="of other images: .*Choose another --out"):
        run(store.take(np.arange(30)), out)
    (tmp_path / "a.npz.json").unlink()
    with pytest.raises(UserError, match=r"a.npz.json, .*, is missing"):
        run(store, out)


def test_forms_that_are_not_there(monkeypatch):
    with pytest.raises(UserError, match="end --out in one of .parquet, .npz, .csv"):
        embedding_files.check_path(pathlib.Path("a.pth"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"\.\[parquet\]"):
        embedding_files.check_path(pathlib.Path("a.parquet"))


@pytest.fixture
def photographs(tmp_path):
    """A folder without labels; a name of it is no UTF-8."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(24):
        colour = rng.integers(0, 256, 3)
        name = f"{i:02}<b>.png" if i else "caf\udce9.png"
        image = Image.new("RGB", (40, 32), tuple(map(int, colour)))
        image.save(tmp_path / "photos" / name, "PNG")
    return tmp_path / "photos"


def test_map_and_nearest_of_unlabelled_photographs(photographs, tmp_path, capsys):
    """In a browser, too, where there is one: a point shows its image and its name."""
    settings = embed.Options(
        dataset=f"folder:{photographs}", image_size=16, data_dir=str(tmp_path / "data")
    )
    store = settings.open("all")
    out = tmp_path / "a.npz"
    run(store, out)
    with np.load(out) as file:
        assert pathlib.Path(file["path"][1]).is_file()
        assert set(file["label"]) == {-1} and set(file["class"]) == {""}
        assert r"caf\udce9.png" in file["id"]
    features = embedding_files.read_features(out, 24)

    row, pixels = embed.find_image(store, str(photographs / "05<b>.png"), settings)
    assert store.ids[row] == "05<b>.png"
    assert embed.find_image(store, "05<b>.png", settings)[0] == row
    (photographs / "06<b>.png").rename(tmp_path / "6.png")
    (photographs / "06<b>.png").symlink_to(tmp_path / "6.png")
    assert (
        embed.find_image(store, str(photographs / "06<b>.png"), settings)[0] == row + 1
    )
    (tmp_path / "other.png").write_bytes((photographs / "05<b>.png").read_bytes())
    other, same = embed.find_image(store, str(tmp_path / "other.png"), settings)
    assert other == -1 and np.array_equal(same, pixels)
    with pytest.raises(UserError, match="has no image 'no.png'"):
        embed.find_image(store, "no.png", settings)
    (tmp_path / "text.png").write_text("none")
    with pytest.raises(UserError, match="text.png cannot be used"):
        embed.find_image(store, str(tmp_path / "text.png"), settings)

    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[row]), kind="stable")
    picture = tmp_path / "near.png"
    embed.show_nearest(picture, (row, pixels), features[row], features, store, 3)
    lines = capsys.readouterr().out.splitlines()[-3:]
    names = [embed._plain(store.ids[i]) for i in order if i != row][:3]
    assert [line.split()[-1] for line in lines] == names
    assert np.asarray(Image.open(picture).convert("L")).std() > 5

    page = tmp_path / "a.map.html"
    embed.write_map(page, features, store, settings)
    text = page.read_text()
    assert "<b>" not in text and not re.findall(r'(?:src|href)="(?!data:)', text)
    _look(page, store)


def _look(page, store):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--window-size=800,1400"):
        options.add_argument(argument)
    try:
        browser = webdriver.Chrome(options=options)
    except Exception:
        pytest.skip("there is no Chromium")
    try:
        browser.get(page.as_uri())
        canvas = browser.find_element("id", "points")
        x, y = browser.execute_script("return [left(7), top_(7)]")
        x, y = x - canvas.size["width"] / 2, y - canvas.size["height"] / 2
        mouse = webdriver.ActionChains(browser)
        mouse.move_to_element_with_offset(canvas, round(x), round(y)).perform()
        look = browser.find_element("id", "look")
        assert look.is_displayed() and look.text == store.ids[7]
        middle = "return [...document.querySelector('#look canvas').getContext('2d')"
        middle += ".getImageData(96, 96, 1, 1).data]"
        shown = np.array(browser.execute_script(middle)[:3])
        assert abs(shown - store.read([7])[0, 8, 8].astype(int)).max() < 12
        assert not browser.get_log("browser")
    finally:
        browser.quit()


@pytest.mark.parametrize(
    "place, libraries",
    [(0, ["pandas", "pyarrow"]), (1, ["faiss"])],
    ids=["pandas", "faiss"],
)
def test_snippets_read_the_files(place, libraries, store, tmp_path, monkeypatch):
    for library in libraries:
        pytest.importorskip(library)
    text = (ROOT / "docs" / "evaluation.md").read_text()
    section = text.partition("## Embeddings\n")[2].partition("\n## ")[0]
    snippet = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[place]
    for suffix in re.findall(r"photos(\.\w+)", snippet):
        run(store, tmp_path / f"photos{suffix}")
    monkeypatch.chdir(tmp_path)
    expected = store.images.reshape(60, -1) * np.float32(1 / 7)
    names, read = {}, []
    for line in snippet.splitlines():
        exec(line, names)
        if line.startswith("features ="):
            read.append(names["features"].copy())
    for features in read:
        np.testing.assert_array_equal(features, expected)
        assert features.dtype == np.float32 and features.flags.c_contiguous
    assert len(read) == 2 - place
    if "rows" in names:
        assert names["rows"][0, 0] == 0
    else:
        assert list(names["table"]["id"]) == list(store.ids)


def test_the_command_from_a_file_of_weights(photographs, tmp_path):
    module = models.get(
        "vit_tiny", dim=24, depth=1, heads=1, patch_size=8, image_size=16
    )
    images = jnp.zeros((1, 16, 16, 3))
    variables = jax.jit(lambda: module.init(jax.random.key(0), images, False))()
    backbone = Backbone(module, variables, 16, *[(0.5, 0.5, 0.5)] * 2, {"step": 5})
    path = weights.save(backbone, tmp_path / "net.safetensors", "timm")
    command = [sys.executable, "-m", "eval.embed", f"--checkpoint={path}", "--map"]
    command += [f"--dataset=folder:{photographs}", f"--out={tmp_path / 'a.csv'}"]
    done = subprocess.run(
        [
            *command,
            "--nearest=03<b>.png",
            "--neighbours=5",
            f"--data_dir={tmp_path}/data",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "24 images, 24 features each" in done.stdout
    assert len(re.findall(r"^  [01]\.\d{4}  \S+$", done.stdout, re.MULTILINE)) == 5
    assert (tmp_path / "a.map.html").exists() and (tmp_path / "a.nearest.png").exists()
    rows = embed.Options(
        dataset=f"folder:{photographs}", image_size=16, data_dir=f"{tmp_path}/data"
    ).open("all")
    features = embedding_files.read_features(tmp_path / "a.csv", 24)
    # Eight devices here, and one there.
    np.testing.assert_allclose(features, Extractor(backbone).extract(rows), atol=1e-5)
