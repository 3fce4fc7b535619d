"""The curation page: requests, pictures, and a person at the keyboard."""

import contextlib
import functools
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from werkzeug import serving

from input_pipeline import pairs
from input_pipeline.curation import page as curate_page
from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.pairs import pairing
from input_pipeline.stores import open_source, open_store, records


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


def test_the_original_pictures(folder):
    path, store, _ = folder
    shutil.make_archive(path / "packed", "zip", path / "pictures")
    packed = open_store(f"folder:{path / 'packed.zip'}", data_dir=path / "data")
    records.write(open_source(store.name), path / "records", 64, "crop", 0, 4)
    recorded = open_store(f"array_record:{path / 'records'}")
    assert packed.ids == recorded.ids == store.ids

    def picture(store, row):
        content = curate_page.original_pictures(store)(row)
        return np.asarray(Image.open(io.BytesIO(content)))

    for row in (0, 9):  # The first one is CMYK.
        with Image.open(path / "pictures" / store.ids[row]) as file:
            original = np.asarray(file.convert("RGB"))
        assert np.array_equal(picture(store, row), original)
        assert np.array_equal(picture(packed, row), original)
        assert np.array_equal(picture(recorded, row), store.read(row))


def test_a_pair_of_two_classes_is_told(folder):
    path, store, _ = folder
    table = pairs.PairTable.of(store, np.array([0, 0]), np.array([1, 5]), "mined")
    curation = Curation(table, store, path / "two.csv")
    client = curate_page.make_app(
        curation, lambda row: b"", path / "out.csv"
    ).test_client()
    told = [client.get(f"/pair/{i}").json["two_classes"] for i in (0, 1)]
    assert told == ["", "cat / dog <b>"]


def test_the_requests(folder):
    path, store, table = folder
    curation = Curation(table, store, path / "log.csv")
    export = path / "out.csv"
    app = curate_page.make_app(curation, curate_page.original_pictures(store), export)
    client = app.test_client()

    def post(where, **body):
        return client.post(where, json=body)

    def decide(pair, action):
        images = client.get(f"/pair/{pair}").json["images"]
        return post("/decide", pair=pair, action=action, images=images).json

    def urls(*rows):
        return [f"/image/{store.fingerprint[:12]}/{row}" for row in rows]

    assert b"another partner" in client.get("/").data
    view = client.get("/undecided/-1").json
    assert (view["pair"], view["pairs"], view["status"]) == (0, 4, "undecided")
    shown = [image["url"] for image in view["images"]]
    assert shown == urls(table.first[0], table.second[0])
    image = client.get(shown[0])
    assert image.mimetype == "image/png" and image.cache_control.max_age == 3600
    for wrong in (*urls(999), f"/image/{'0' * 12}/0"):
        assert client.get(wrong).status_code == 404
    assert "No pair has been accepted" in post("/export").json["error"]
    assert "nothing to undo" in post("/undo").json["error"]
    old = view["images"]
    view = decide(0, "swap")
    swapped = store.ids.index(view["images"][1]["name"])
    assert view["pair"] == 0 and swapped != table.second[0]
    # A page that was left open shows something else by now.
    late = post("/decide", pair=0, action="accept", images=old)
    assert "load the page again" in late.json["error"] and not curation.status.any()
    assert decide(0, "accept")["pair"] == 1
    assert decide(1, "reject")["pair"] == 2
    assert post("/undo").json["pair"] == 1
    assert decide(1, "reject")["pair"] == 2
    decide(2, "accept")
    view = decide(3, "reject")
    assert view["finished"] and view["decided"] == 4
    assert view["classes"]["near"][0] == {
        "name": "cat",
        "first": 0,
        "accepted": 1,
        "rejected": 1,
        "pairs": 2,
    }
    assert client.get("/pair/-5").json["pair"] == 0
    assert "no action" in decide(0, "burn")["error"]
    export.mkdir()
    assert "out.csv cannot be written" in post("/export").json["error"]
    export.rmdir()
    assert "2 accepted pairs" in post("/export").json["message"]
    clean = pairs.load_table(export, store)
    assert clean.first.tolist() == table.first[[0, 2]].tolist()
    assert clean.second.tolist() == [swapped, table.second[2]]
    assert "curated (2 of 4 accepted)" in clean.source
    (path / "pictures" / store.ids[table.second[0]]).unlink()
    gone = client.get(*urls(table.second[0]))
    assert gone.status_code == 400 and "cannot be shown" in gone.json["error"]


def test_other_sites_are_refused(make_store, tmp_path):
    store = make_store([0] * 8 + [1] * 7)
    table = pairing.class_pairs(store, 3, seed=0)
    curation = Curation(table, store, tmp_path / "decisions.csv")
    curation.decide(0, "accept")
    app = curate_page.make_app(curation, bytes, tmp_path / "out.csv")
    client = app.test_client()
    # By a name that resolves to this machine.
    other = client.get("/", headers={"Host": "evil.example"})
    assert other.status_code == 400
    for path in ("/decide", "/undo", "/export"):
        for origin in ("http://evil.example", "null", "http://localhost:1"):
            answer = client.post(path, json={}, headers={"Origin": origin})
            assert answer.status_code == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            answer = client.post(path, data="{}", content_type=kind)
            assert answer.status_code == 403
        assert client.post(path).status_code == 403
    assert curation.status[0] == ACCEPTED and not (tmp_path / "out.csv").exists()
    answer = client.post("/undo", json={}, headers={"Origin": "http://localhost"})
    assert answer.json["pair"] == 0


@pytest.mark.parametrize(
    "body, code",
    [
        *((body, 400) for body in ("", "{", "[]", "7", "null", '"x"', "\xff", "NaN")),
        *((body, 400) for body in ("[" * 60_000, '{"pair": ' + "9" * 5000 + "}", "{}")),
        *(
            (json.dumps({"images": [], "pair": 0, "action": "accept"} | wrong), 400)
            for wrong in (
                *({"pair": x} for x in (None, "0", 0.0, True, [0], {}, 10**30, -1)),
                *({"action": x} for x in (None, 1, ["accept"], {})),
                *({"images": x} for x in (None, 1, "x", {}, [[]])),
            )
        ),
        ('{"pair": 0, "x": "' + "x" * 70_000 + '"}', 413),
    ],
)
def test_requests_of_another_form(make_store, tmp_path, body, code):
    """Refused in words, and nothing is decided."""
    store = make_store([0] * 8)
    curation = Curation(pairing.class_pairs(store, 3, seed=0), store, tmp_path / "log")
    client = curate_page.make_app(curation, bytes, tmp_path / "out.csv").test_client()
    kept = (tmp_path / "log").read_bytes()
    content = body.encode("latin-1")
    for path in ("/decide", "/undo", "/export") if code == 413 else ("/decide",):
        answer = client.post(path, data=content, content_type="application/json")
        assert answer.status_code == code and answer.json["error"]
    assert (tmp_path / "log").read_bytes() == kept and not curation.status.any()


def test_no_other_site_shows_the_page(make_store, tmp_path):
    store = make_store([0] * 8)
    curation = Curation(pairing.class_pairs(store, 3, seed=0), store, tmp_path / "log")
    client = curate_page.make_app(curation, bytes, tmp_path / "out.csv").test_client()
    for path in ("/", "/pair/0", "/nowhere"):
        headers = client.get(path).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_of_many_classes_those_near_are_listed(make_store, tmp_path):
    store = make_store(np.repeat(np.arange(500), 2))
    curation = Curation(pairing.class_pairs(store, 1, seed=0), store, tmp_path / "log")
    client = curate_page.make_app(curation, bytes, tmp_path / "out.csv").test_client()
    for pair, before, behind in ((0, 0, 399), (250, 150, 149), (499, 399, 0)):
        view = client.get(f"/pair/{pair}").json
        classes = view["classes"]
        assert (classes["before"], classes["behind"]) == (before, behind)
        assert len(classes["near"]) == 500 - before - behind
        assert classes["near"][pair - before]["name"] == view["label"]


@pytest.fixture(scope="module")
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


class Page:
    """What a person sees and presses."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)

    def text(self, name):
        return self.browser.find_element("id", name).text

    def send(self, key):
        self.browser.find_element("tag name", "body").send_keys(key)

    def wait(self, ready):
        end = time.monotonic() + 10
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.02)

    def wait_for_pictures(self):
        busy = self.browser.find_element("id", "pictures").get_attribute
        self.wait(lambda: busy("aria-busy") == "false")

    def press(self, key, name, wanted):
        self.wait_for_pictures()
        self.send(key)
        self.wait_for_pictures()
        assert wanted in self.text(name)

    def heights(self):
        return self.browser.execute_script(
            "return [image0, image1].map(x => x.naturalHeight)"
        )


def command(path, store, *more):
    program = [sys.executable, "-m", "input_pipeline.curate", "--port=0"]
    program += [f"--store={store.name}", f"--pairs={path / 'pairs.csv'}"]
    return [*program, f"--data_dir={path / 'data'}", *more]


def test_a_person_with_a_keyboard(folder, browser):
    """The program and the page in a real browser, by keys alone."""
    from selenium.webdriver.common.keys import Keys

    path, store, table = folder
    program = command(path, store)
    # A shell's background jobs ignore Ctrl-C, and hand that on.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    ) as server:
        try:
            address = re.search(r"http://[\d.:]+", server.stdout.readline())[0]
            page = Page(browser, address)
            press = page.press
            press(Keys.ARROW_RIGHT, "count", "pair 2 of 4, 0 decided")
            press(Keys.ARROW_LEFT, "count", "pair 1 of 4, 0 decided")
            before = page.text("name1")
            press("s", "name1", "ä")
            swapped = page.text("name1")
            assert swapped != before
            press("a", "count", "pair 2 of 4, 1 decided")
            press("r", "count", "pair 3 of 4, 2 decided")
            assert page.text("label") == "dog <b>"  # A name is text, not a tag.
            press("u", "count", "pair 2 of 4, 1 decided")
            press("a", "count", "pair 3 of 4, 2 decided")
            assert page.heights() == [300, 300]  # The original, not what is stored.
            press(Keys.ARROW_LEFT, "count", "pair 2 of 4, 2 decided")
            press("n", "count", "pair 3 of 4, 2 decided")
            press("e", "message", "2 accepted pairs are in")
            press("r", "count", "pair 4 of 4, 3 decided")
            press("r", "message", "Every pair is decided")
            press(Keys.ARROW_LEFT, "count", "pair 3 of 4, 4 decided")
            assert page.text("message") == ""
            press("n", "message", "Every pair is decided")
            second = subprocess.run(program, capture_output=True, text=True)
            assert second.returncode == 2 and "being curated already" in second.stderr
        finally:
            server.terminate()
    clean = pairs.load_table(path / "pairs.curated.csv", store)
    assert len(clean) == 2 and store.ids[clean.second[0]] == swapped


def test_the_program_refuses_with_one_sentence(folder):
    path, store, _ = folder
    (path / "pairs.decisions.csv.lock").mkdir()
    for more, wanted in (
        ("--port=70000", "port"),
        ("--port=0", "copy the pairs into a folder that can be written"),
    ):
        done = subprocess.run(
            command(path, store, more), capture_output=True, text=True
        )
        assert done.returncode == 2 and wanted in done.stderr
        assert "Traceback" not in done.stderr


def test_the_end_and_a_port_that_is_taken(folder):
    path, store, _ = folder
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = command(path, store, f"--port={port}")
        done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"error: Port {port} cannot be used (Address already in use)" in done.stderr
    log = path / "pairs.decisions.csv"
    kept = log.read_bytes()
    log.write_bytes(kept + b"time,0,acc")
    program = command(path, store)
    # A shell's background jobs ignore Ctrl-C, and hand that on.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    ) as server:
        assert "was cut off ('time,0,acc')" in server.stdout.readline()
        assert "4 pairs: open http" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        said, _ = server.communicate(timeout=20)
    assert server.returncode == 0 and log.read_bytes() == kept
    assert said == f"\nStopped. The decisions are in {log}; the same command goes on.\n"


def unlabelled(make_store, side):
    """Two pairs of images without labels, the size of which tells the sets apart."""
    store = make_store([-1] * 4, size=side, name="array_record:x")
    made_for = store.name, store.split, store.fingerprint
    return store, pairs.PairTable([0, 2], [1, 3], [-1, -1], *made_for, "by hand")


@contextlib.contextmanager
def serve(curation, picture, port=0):
    app = curate_page.make_app(curation, picture, curation._path.with_name("out.csv"))
    server = serving.make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_keys_wait_for_the_pictures_of_this_set(make_store, browser, tmp_path):
    store, table = unlabelled(make_store, side=5)
    curation = Curation(table, store, tmp_path / "first.csv")
    with serve(curation, curate_page.original_pictures(store)) as port:
        page = Page(browser, f"http://127.0.0.1:{port}")
        page.press("s", "message", "no class to swap in")
        assert page.text("label") == "without a label" and page.heights() == [5, 5]

    # Another set at the same address, the last picture of which is gone.
    store, table = unlabelled(make_store, side=6)
    curation = Curation(table, store, tmp_path / "second.csv")
    loaded = threading.Event()

    def picture(row):
        loaded.wait(10)
        if row == 3:
            raise OSError("it is gone")
        return curate_page.original_pictures(store)(row)

    with serve(curation, picture, port):
        page = Page(browser, f"http://127.0.0.1:{port}")
        page.wait(lambda: "pair 1 of 2" in page.text("count"))
        page.send("r")
        time.sleep(0.2)
        assert not curation.status.any()  # Nothing has been seen.
        loaded.set()
        page.wait_for_pictures()
        assert page.heights() == [6, 6]
        page.press("a", "count", "pair 2 of 2, 1 decided")
        assert "class-1/3.png cannot be shown (it is gone)" in page.text("message")
        page.press("a", "message", "cannot be shown")
        assert curation.status.tolist() == [ACCEPTED, UNDECIDED]
        page.press("r", "message", "Every pair is decided")
    assert curation.status.tolist() == [ACCEPTED, REJECTED]
