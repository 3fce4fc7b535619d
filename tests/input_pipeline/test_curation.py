"""Decisions on pairs: kept at once, undone, repeated after a crash; the page."""

import re
import shutil
import subprocess
import sys
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from input_pipeline import curate_page, pairing, pairs
from input_pipeline.curation import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.errors import UserError
from input_pipeline.store import open_store


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
    assert path.read_bytes() == kept
    assert again.status[:2].tolist() == [ACCEPTED, UNDECIDED]
    assert again.second[1] == curation.second[1] != table.second[1]
    again.undo()
    assert again.second[1] == table.second[1]
    with pytest.raises(UserError, match="decisions on other pairs"):
        Curation(pairing.class_pairs(store, 2, seed=0), store, path)


def test_a_kill_loses_no_decision(tmp_path):
    program = """
        import os, signal, sys
        import numpy as np
        from input_pipeline import pairing
        from input_pipeline.curation import Curation
        from input_pipeline.store import open_store
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


@pytest.fixture
def folder(tmp_path):
    """Larger images than what is stored, one of them CMYK, and a table of pairs."""
    rng = np.random.default_rng(0)
    for c in ("cat", "dog <b>"):
        (tmp_path / "pictures" / c).mkdir(parents=True)
        for i in range(5):
            small = rng.integers(0, 256, (5, 4, 3), np.uint8)
            image = Image.fromarray(small).resize((240, 300), Image.BICUBIC)
            if i == 0:
                image = image.convert("CMYK")
            image.save(tmp_path / "pictures" / c / f"ä {i}.jpg")
    store = open_store(f"folder:{tmp_path / 'pictures'}", data_dir=tmp_path / "data")
    table = pairing.class_pairs(store, 2, seed=0)
    pairs.save_table(tmp_path / "pairs.csv", table, store)
    return tmp_path, store, table


def test_the_requests(folder):
    path, store, table = folder
    curation = Curation(table, store, path / "log.csv")
    export = path / "out.csv"
    app = curate_page.make_app(curation, curate_page.original_pictures(store), export)
    client = app.test_client()

    def post(where, **body):
        return client.post(where, json=body)

    assert b"another partner" in client.get("/").data
    view = client.get("/undecided/-1").json
    assert (view["pair"], view["pairs"], view["status"]) == (0, 4, "undecided")
    assert [x["row"] for x in view["images"]] == [table.first[0], table.second[0]]
    image = client.get(f"/image/{table.first[0]}")
    assert image.mimetype == "image/png"
    assert client.get("/image/999").status_code == 404
    assert "No pair has been accepted" in post("/export").json["error"]
    assert "nothing to undo" in post("/undo").json["error"]
    view = post("/decide", pair=0, action="swap").json
    assert view["pair"] == 0 and view["images"][1]["row"] != table.second[0]
    swapped = view["images"][1]["row"]
    assert post("/decide", pair=0, action="accept").json["pair"] == 1
    assert post("/decide", pair=1, action="reject").json["pair"] == 2
    assert post("/undo").json["pair"] == 1
    assert post("/decide", pair=1, action="reject").json["pair"] == 2
    post("/decide", pair=2, action="accept")
    view = post("/decide", pair=3, action="reject").json
    assert view["finished"] and view["classes"][0] == {
        "name": "cat",
        "first": 0,
        "accepted": 1,
        "rejected": 1,
        "pairs": 2,
    }
    assert client.get("/pair/-5").json["pair"] == 0
    assert "no action" in post("/decide", pair=0, action="burn").json["error"]
    assert "2 accepted pairs" in post("/export").json["message"]
    clean = pairs.load_table(export, store)
    assert clean.first.tolist() == table.first[[0, 2]].tolist()
    assert clean.second.tolist() == [swapped, table.second[2]]
    assert "curated (2 of 4 accepted)" in clean.source
    # Another site cannot reach the page by a name that resolves to this machine.
    other = client.get("/", headers={"Host": "evil.example"})
    assert other.status_code == 400


@pytest.fixture
def browser():
    """Chromium without a screen."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("Chromium and its driver are not installed.")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-background-networking"),
        *("no-first-run", "disable-component-update", "disable-sync"),
        "window-size=1200,700",
    ):
        options.add_argument(f"--{flag}")
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def test_a_person_with_a_keyboard(folder, browser):
    """The program and the page in a real browser, by keys alone."""
    from selenium.webdriver.common.keys import Keys

    path, store, table = folder
    command = [sys.executable, "-m", "input_pipeline.curate", "--port=0"]
    command += [f"--store={store.name}", f"--pairs={path / 'pairs.csv'}"]
    command += [f"--data_dir={path / 'data'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://[\d.:]+", server.stdout.readline())[0]
            browser.get(address)

            def text(name):
                return browser.find_element("id", name).text

            def press(key, name, wanted):
                browser.find_element("tag name", "body").send_keys(key)
                end = time.monotonic() + 10
                while wanted not in text(name):
                    assert time.monotonic() < end, (key, wanted, text(name))
                    time.sleep(0.05)

            press(Keys.ARROW_RIGHT, "count", "pair 2 of 4, 0 decided")
            press(Keys.ARROW_LEFT, "count", "pair 1 of 4, 0 decided")
            before = text("name1")
            press("s", "name1", "ä")
            end = time.monotonic() + 10
            while text("name1") == before:
                assert time.monotonic() < end
            swapped = text("name1")
            press("a", "count", "pair 2 of 4, 1 decided")
            press("r", "count", "pair 3 of 4, 2 decided")
            assert text("label") == "dog <b>"  # A name is text, not a tag.
            press("u", "count", "pair 2 of 4, 1 decided")
            press("a", "count", "pair 3 of 4, 2 decided")
            loaded = browser.execute_script(
                "return [0, 1].map(i => document.getElementById('image' + i))"
                ".map(x => x.naturalHeight)"
            )
            assert loaded == [300, 300]  # The original, not what is stored.
            press("e", "message", "2 accepted pairs are in")
            second = subprocess.run(command, capture_output=True, text=True)
            assert second.returncode == 2 and "being curated already" in second.stderr
        finally:
            server.terminate()
    clean = pairs.load_table(path / "pairs.curated.csv", store)
    assert len(clean) == 2 and store.ids[clean.second[0]] == swapped
