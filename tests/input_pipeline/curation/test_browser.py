"""A person at the keyboard, in a real browser."""

import contextlib
import pathlib
import shutil
import signal
import subprocess
import threading
import time

import pytest
from werkzeug import serving

from input_pipeline import pairs
from input_pipeline.curation import page as curate_page
from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.curation.pictures import original_pictures
from input_pipeline.pairs import pairing
from tests.input_pipeline.curation.running import address, command, running


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
        if "only just appeared" in self.text("message"):
            time.sleep(0.3)
            self.send(key)
            self.wait_for_pictures()
        self.wait(lambda: wanted in self.text(name))

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def heights(self, where):
        images = self.find(f"{where} img")
        return [int(image.get_attribute("naturalHeight")) for image in images]


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
        press("q", "message", "Enter accepts the pair with this partner")
        swapped = page.text("large").split("\n")[1]
        assert swapped not in before
        press(Keys.BACKSPACE, "status", "undecided")
        assert page.text("large") == before
        page.wait(lambda: len(page.find("#strip .tile")) == 1)
        press("q", "message", "Enter accepts")
        press(Keys.ENTER, "status", "2 pairs, 1 rejected")
        # Where a person has clicked takes no key from the sheet.
        for place, marked in (("short", 2), ("open_classes", 1)):
            page.find(f"#{place}")[0].click()
            press("w", "status", f"2 pairs, {marked} rejected")
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
        page.press(Keys.ENTER, "class_count", "1 of 2 made")  # None of these.
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


AT_ONCE = """  // Enter as soon as the next sheet is there: nobody has seen it.
const press = key =>
  document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
press("ArrowRight");
const timer = setInterval(() => {
  if (pictures.ariaBusy === "true") return;
  clearInterval(timer);
  press("Enter");
}, 1);
"""


def test_enter_decides_nothing_that_is_not_asked_for_or_not_seen(
    make_store, browser, tmp_path
):
    from selenium.webdriver.common.keys import Keys

    store = make_store([0] * 16, name="array_record:x")
    table = pairing.class_pairs(store, 8, seed=0)
    curation = Curation(table, store, tmp_path / "log.csv")
    status = curation.state.status
    with serve(curation, original_pictures(store), wanted=2) as port:
        page = Page(browser, f"http://127.0.0.1:{port}")
        page.wait_for_pictures()
        browser.execute_script(AT_ONCE)
        page.wait(lambda: "only just appeared" in page.text("message"))
        assert not status.any()
        page.press(Keys.ARROW_LEFT)
        page.press(Keys.ENTER, "message", "undecided: 6")
        page.press(Keys.ENTER, "message", "undecided: 6")
        page.press(Keys.ARROW_LEFT)  # Those that are left stay so.
        page.press(Keys.ENTER, "message", "undecided: 6")
        page.find("#actions button")[-2].click()  # One by one.
        page.press("x", "status", "rejected")
        page.press(Keys.ENTER, "status", "rejected")
    assert (status == ACCEPTED).sum() == 2 and status[7] == REJECTED


def unlabelled(make_store, side):
    """Two pairs of images without labels, the size of which tells the sets apart."""
    store = make_store([-1] * 4, size=side, name="array_record:x")
    made_for = store.name, store.split, store.fingerprint
    return store, pairs.PairTable([0, 2], [1, 3], [-1, -1], *made_for, "by hand")


@contextlib.contextmanager
def serve(curation, picture, port=0, **options):
    app = curate_page.make_app(curation, picture, pathlib.Path("out.csv"), **options)
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
        page.wait(lambda: page.find("#actions button"))
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
