"""The curation page: requests, and a person at the keyboard."""

import contextlib
import functools
import http.client
import itertools
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from werkzeug import serving

from input_pipeline import pairs
from input_pipeline.curation import page as curate_page
from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.curation.pictures import original_pictures
from input_pipeline.pairs import pairing


def client_of(curation, picture=None, export=None, **options):
    picture = picture or (lambda row, side: b"")
    return curate_page.make_app(curation, picture, export, **options).test_client()


def test_the_requests(folder):
    path, store, table = folder
    curation = Curation(table, store, path / "log.csv", person="ann")
    export = path / "out.csv"
    client = client_of(curation, original_pictures(store), export)
    mark = store.fingerprint[:12]

    def post(where, **body):
        return client.post(where, json=body)

    def decide(view, *actions, count=12, **more):
        steps = [
            {"pair": p["pair"], "images": [i["row"] for i in p["images"]]} | action
            for p, action in zip(view["pairs"], actions, strict=False)
        ]
        return post(f"/decide?count={count}", store=mark, decisions=steps, **more).json

    accept, reject = {"action": "accept"}, {"action": "reject"}
    assert b"/static/main.js" in client.get("/").data
    assert client.get("/static/main.js").mimetype == "text/javascript"
    assert client.get("/facts").json["person"] == "ann"
    view = client.get("/sheet?count=12").json
    assert [pair["pair"] for pair in view["pairs"]] == [0, 1]  # Of one class.
    assert (view["label"], view["class_pairs"], view["left"]) == ("cat", 2, 4)
    shown = [image["url"] for image in view["pairs"][0]["images"]]
    assert shown == [
        f"/image/{mark}/{row}" for row in (table.first[0], table.second[0])
    ]
    image = client.get(shown[0])
    assert image.mimetype == "image/png" and image.cache_control.max_age == 3600
    for wrong in (f"/image/{mark}/999", f"/image/{'0' * 12}/0", "/partners/4"):
        assert client.get(wrong).status_code == 404
    assert "No pair has been accepted" in post("/export").json["error"]
    assert "nothing to undo" in post("/undo").json["error"]
    # Another partner is shown before it is decided on.
    partners = client.get("/partners/0?count=12").json["partners"]
    swapped = partners[0]["row"]
    assert len(partners) == 1 and store.labels[swapped] == store.labels[0]
    second = {"action": "swap", "second": swapped}
    fresh = decide(view, second, stay=True)
    assert [i["row"] for i in fresh["pairs"][0]["images"]][1] == swapped
    # A page that was left open shows something else by now.
    assert "load the page again" in decide(view, accept)["error"]
    assert "cannot be the partner" in decide(fresh, second | {"second": 9})["error"]
    view = client.get("/sheet?count=12").json
    assert client.get("/sheet?count=9&after=1&without=0,1").json["label"] == "dog <b>"
    assert decide(view, accept, reject)["label"] == "dog <b>"
    undone = post("/undo").json
    assert [pair["had"] for pair in undone["pairs"]] == ["accepted", "rejected"]
    view = decide(undone, accept, reject)
    view = decide(view, accept, count=1)
    assert [pair["pair"] for pair in view["pairs"]] == [3]
    view = decide(view, reject)
    assert view["finished"] and view["decided"] == 4
    assert client.get("/classes?search=CA").json["classes"] == [
        {"class": 0, "name": "cat", "accepted": 1, "rejected": 1, "pairs": 2}
    ]
    assert client.get("/class/1?count=9").json["pairs"][1]["status"] == "rejected"
    assert client.get("/around/-5?count=9").json["pairs"][0]["pair"] == 0
    export.mkdir()
    assert "out.csv cannot be written" in post("/export").json["error"]
    export.rmdir()
    assert "2 accepted pairs" in post("/export").json["message"]
    clean = pairs.load_table(export, store)
    assert clean.first.tolist() == table.first[[0, 2]].tolist()
    assert clean.second.tolist() == [swapped, table.second[2]]
    assert "curated (2 of 4 accepted)" in clean.source
    assert "label,by,time" in export.read_text() and ",ann,20" in export.read_text()
    (path / "pictures" / store.ids[table.second[0]]).unlink()
    gone = client.get(shown[1])
    assert gone.status_code == 400 and "cannot be shown" in gone.json["error"]


def test_other_sites_are_refused(make_store, tmp_path):
    store = make_store([0] * 8 + [1] * 7)
    table = pairing.class_pairs(store, 3, seed=0)
    curation = Curation(table, store, tmp_path / "decisions.csv")
    curation.decide((0, "accept"))
    client = client_of(curation, export=tmp_path / "out.csv")
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
    assert curation.state.status[0] == ACCEPTED and not (tmp_path / "out.csv").exists()
    answer = client.post("/undo", json={}, headers={"Origin": "http://localhost"})
    assert answer.json["pairs"][0]["pair"] == 0
    for path in ("/", "/sheet", "/static/main.js", "/nowhere"):  # Nor show the page.
        headers = client.get(path).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


STEP = {"images": [], "pair": 0, "action": "accept"}


@pytest.mark.parametrize(
    "body, code",
    [
        *((body, 400) for body in ("", "{", "[]", "7", "null", '"x"', "\xff", "NaN")),
        *((body, 400) for body in ("[" * 60_000, '{"pair": ' + "9" * 5000 + "}", "{}")),
        *(
            (json.dumps({"store": "x", "decisions": wrong}), 400)
            for wrong in (
                *(None, 1, "x", {}, [], [1], [[]], [{}]),
                *([STEP | {"pair": x}] for x in (None, "0", 0.0, True, {}, 10**30, -1)),
                *([STEP | {"action": x}] for x in (None, 1, ["accept"], {})),
                *([STEP | {"images": x}] for x in (None, 1, "x", {}, [[]])),
                [STEP | {"second": "1"}],
            )
        ),
        ('{"pair": 0, "x": "' + "x" * 70_000 + '"}', 413),
    ],
)
def test_requests_of_another_form(make_store, tmp_path, body, code):
    """Refused in words, and nothing is decided."""
    store = make_store([0] * 8)
    curation = Curation(pairing.class_pairs(store, 3, seed=0), store, tmp_path / "log")
    client = client_of(curation, export=tmp_path / "out.csv")
    kept = (tmp_path / "log").read_bytes()
    content = body.replace('"x", "dec', f'"{store.fingerprint[:12]}", "dec')
    for path in ("/decide", "/undo", "/export") if code == 413 else ("/decide",):
        answer = client.post(
            path, data=content.encode("latin-1"), content_type="application/json"
        )
        assert answer.status_code == code and answer.json["error"]
    assert (tmp_path / "log").read_bytes() == kept and not curation.state.status.any()


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
        self.browser.switch_to.active_element.send_keys(key)

    def wait(self, ready):
        end = time.monotonic() + 10
        while not ready():
            assert time.monotonic() < end
            time.sleep(0.02)

    def wait_for_pictures(self):
        busy = self.browser.find_element("id", "pictures").get_attribute
        self.wait(lambda: busy("aria-busy") == "false")

    def press(self, key, name="count", wanted=""):
        self.wait_for_pictures()
        self.send(key)
        self.wait_for_pictures()
        self.wait(lambda: wanted in self.text(name))

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def heights(self, where):
        images = self.find(f"{where} img")
        return [int(image.get_attribute("naturalHeight")) for image in images]


def command(path, store, *more, table="--pairs={}/pairs.csv"):
    program = [sys.executable, "-m", "input_pipeline.curate", "--port=0"]
    program += [f"--store={store.name}", table.format(path)]
    return [*program, f"--data_dir={path / 'data'}", *more]


@contextlib.contextmanager
def running(program):
    """The program; its address is the end of what it says first."""
    # A shell's background jobs ignore Ctrl-C, and hand that on.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def address(server):
    return re.search(r"http://[\d.:]+", server.stdout.readline())[0]


def test_a_person_with_a_keyboard(folder, browser):
    """The program and the page in a real browser, by keys alone."""
    from selenium.webdriver.common.keys import Keys

    path, store, _ = folder
    program = command(path, store)
    with running(program) as server:
        page = Page(browser, address(server))
        press = page.press
        press(Keys.ARROW_RIGHT, "label", "dog <b>")  # A name is text, not a tag.
        press(Keys.ARROW_LEFT, "label", "cat")
        press("w", "status", "2 pairs, 1 rejected")
        press("0", "status", "2 pairs, 1 rejected")
        first, second = page.find("#tiles .tile")
        assert first.get_attribute("aria-pressed") == "true"
        assert ".jpg, rejected" in first.accessible_name
        assert second.accessible_name.startswith("W, cat/ä")
        press(Keys.ENTER, "count", "2 of 4 pairs decided")
        press(Keys.BACKSPACE, "count", "0 of 4 pairs decided")
        assert "1 rejected" in page.text("status")  # As it was.
        press(Keys.SHIFT + "w", "status", "undecided")
        assert page.heights("#large") == [300, 300]  # The original, not what is stored.
        page.wait(lambda: len(page.find("#strip .tile")) == 1)
        before = page.text("large")
        press("1", "status", "undecided")
        swapped = page.text("large").split("\n")[1]
        assert swapped not in before
        press("a", "status", "2 pairs, 1 rejected")
        press(Keys.ENTER, "count", "2 of 4 pairs decided")
        press(Keys.ENTER, "message", "Every pair is decided")
        # Export has no key on a sheet: it is reached by Tab.
        export = page.find("#actions button")[-1]
        assert export.text == "export"
        browser.execute_script("arguments[0].focus()", export)
        press(Keys.ENTER, "message", "3 accepted pairs are in")
        again = subprocess.run(program, capture_output=True, text=True)
        assert again.returncode == 2 and "being curated already" in again.stderr
    clean = pairs.load_table(path / "pairs.curated.csv", store)
    assert len(clean) == 3 and store.ids[clean.second[0]] == swapped


def test_a_person_who_makes_pairs(folder, browser):
    from selenium.webdriver.common.keys import Keys

    path, store, _ = folder
    program = command(path, store, "--pairs_per_class=2", table="--out={}/made.csv")
    with running(program) as server:
        page = Page(browser, address(server))
        page.press("w", "count", "1 pair made")
        page.press(Keys.ENTER, "class_count", "1 of 2 accepted")  # None of these.
        page.press("q", "label", "dog <b>")
        assert len(page.find("#tiles .tile")) == 4
        page.press("q", "count", "3 pairs made")
        page.press("q", "message", "Every image has a partner")
        server.send_signal(signal.SIGKILL)
    with running(program) as server:
        page = Page(browser, address(server))
        page.wait(lambda: "4 pairs made" in page.text("count"))
        page.press(Keys.BACKSPACE, "count", "3 pairs made")
        page.press("q", "count", "4 pairs made")
        browser.execute_script(
            "document.querySelector('#actions button:last-child').click()"
        )
        page.wait(lambda: "4 accepted pairs are in" in page.text("message"))
    made = pairs.load_table(path / "made.csv", store)
    images = [*made.first, *made.second]
    assert len(made) == 4 and len(set(images)) == 8
    assert (store.labels[made.first] == store.labels[made.second]).all()


def ask(url, body=None):
    """What the program answers to a request."""
    data = body and json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def test_a_kill_loses_no_decision(folder):
    """What was answered is on the disk, whenever the program is killed."""
    path, store, table = folder
    answered = {}
    for kill in range(3):
        with running(command(path, store)) as server:
            url = address(server)
            timer = threading.Timer(0.1 + 0.05 * kill, server.kill)
            timer.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                for number in itertools.count():
                    turn, pair = divmod(number, len(table))
                    status = (ACCEPTED, REJECTED)[turn % 2]
                    step = {"pair": pair, "action": ("accept", "reject")[turn % 2]}
                    step["images"] = [int(table.first[pair]), int(table.second[pair])]
                    asked = {"store": store.fingerprint[:12], "decisions": [step]}
                    answered.pop(pair, None)  # Until it is answered it may be either.
                    ask(f"{url}/decide", asked)
                    answered[pair] = status
            timer.join()
    kept = Curation(table, store, path / "pairs.decisions.csv").state.status
    assert len(answered) >= 3
    assert {pair: kept[pair] for pair in answered} == answered


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
    path, store, table = folder
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = command(path, store, f"--port={port}")
        done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"error: Port {port} cannot be used (Address already in use)" in done.stderr
    log = path / "pairs.decisions.csv"
    Curation(table, store, log).decide((0, "accept"))
    kept = log.read_bytes()
    log.write_bytes(kept + b"time,0,acc")
    program = command(path, store)
    with running(program) as server:
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
    app = curate_page.make_app(curation, picture, pathlib.Path("out.csv"))
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
    from selenium.webdriver.common.keys import Keys

    store, table = unlabelled(make_store, side=5)
    curation = Curation(table, store, tmp_path / "first.csv")
    with serve(curation, original_pictures(store)) as port:
        page = Page(browser, f"http://127.0.0.1:{port}")
        page.press("q", "status", "2 pairs, 1 rejected")
        assert (
            page.text("label") == "without a label"
            and page.heights("#tiles") == [5] * 4
        )

    # Another set at the same address, the last picture of which is gone.
    store, table = unlabelled(make_store, side=6)
    curation = Curation(table, store, tmp_path / "second.csv")
    loaded = threading.Event()

    def picture(row, side):
        loaded.wait(10)
        if row == 3:
            raise OSError("it is gone")
        return original_pictures(store)(row, side)

    kept = curation.state.status
    with serve(curation, picture, port):
        page = Page(browser, f"http://127.0.0.1:{port}")
        page.wait(lambda: page.text("label"))
        page.send(Keys.ENTER)
        time.sleep(0.2)
        assert not kept.any()  # Nothing has been seen.
        loaded.set()
        page.wait_for_pictures()
        assert page.heights("#tiles") == [6] * 3
        assert "class-1/3.png cannot be shown (it is gone)" in page.text("message")
        page.press(Keys.ENTER, "message", "cannot be shown")
        assert kept.tolist() == [ACCEPTED, UNDECIDED]
        page.press("q", "status", "1 pair, 1 rejected")
        page.press(Keys.ENTER, "message", "Every pair is decided")
    assert kept.tolist() == [ACCEPTED, REJECTED]
