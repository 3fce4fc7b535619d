"""Pairs per hour that a person curates on the page of input_pipeline.curate in a browser.

    pip install selenium               # and Chromium with its driver, found on the PATH
    python -m input_pipeline.mine_pairs --store=folder:/data/images --out=mined.csv
    python -m benchmarks.curation --store=folder:/data/images --pairs=mined.csv --kills=20

The images need labels, by which a scripted person knows which pairs are right. It works through
the first pairs of the table, a sheet at a time: it presses the keys of the wrong ones, with 2 %
errors, and Enter; where most are wrong, it has all marked and presses the keys of the right
ones. Meanwhile the server is killed (SIGKILL) and started again. Then it decides some pairs one
by one. What is printed, as a Markdown table:

* seconds a sheet: from the pressing of Enter until the next sheet is drawn, as the browser
  measures it. --look=S waits so long a pair first, as a person who looks; without it nothing
  has been loaded ahead, which is the worst case.
* keys a pair: all that are pressed.
* pairs an hour: of a person who looks 0.6, 1.5 or 3 seconds at a pair, with the time of the
  page and 0.28 seconds for each key (the average typist of Card, Moran and Newell, 1980).
* the precision of the exported table by the labels, and what the errors let expect.

Decisions are lost if one that the page has shown as kept is not in the file at the end; then
the program fails. Last, it makes pairs of an image and the first partner that is offered.
"""

import argparse
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.common import append_json, spread, table_head, table_row
from input_pipeline import pairs
from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.stores import ImageStore, open_store

LOOKS = (0.6, 1.5, 3.0)  # Seconds at a pair.
GUARD = 0.35  # Seconds in which the page takes no decision on what has just come.
KEY = 0.28  # Seconds to press one.
WIDTH, HEIGHT = 1280, 720
# The time from a key to the drawing of what it shows.
WATCH = """
window.taken = [];
let pressed = null;
addEventListener("keydown", () => { pressed = performance.now(); }, true);
new MutationObserver(() => {
  if (pressed === null || pictures.ariaBusy !== "false") return;
  const began = pressed;
  pressed = null;
  requestAnimationFrame(() => setTimeout(() => taken.push(performance.now() - began)));
}).observe(pictures, {attributeFilter: ["aria-busy"]});
"""
SHEET = """
return [...document.querySelectorAll("#tiles .place .tile")].map(tile => [
  tile.dataset.key, tile.pair.pair, tile.pair.images.map(image => image.row),
  tile.getAttribute("aria-pressed") === "true"]);
"""
NAMES = (
    "return [...document.querySelectorAll('#large figcaption')].map(x => x.innerText);"
)


class Page:
    """The program, and a browser that shows its page."""

    def __init__(self, words: list[str]) -> None:
        """Start both."""
        from selenium import webdriver

        self._words, self.kills = words, 0
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("chrome")
        for flag in (
            *("headless", "no-sandbox", "disable-gpu", "disable-sync", "no-first-run"),
            *("disable-background-networking", "disable-component-update"),
            f"window-size={WIDTH},{HEIGHT}",
        ):
            options.add_argument(f"--{flag}")
        driver = webdriver.ChromeService(shutil.which("chromedriver"))
        self.browser = webdriver.Chrome(options, driver)
        self.start()

    def start(self) -> None:
        """Start the program, and open its page where it stopped."""
        began = time.perf_counter()
        program = [sys.executable, "-m", "input_pipeline.curate", "--port=0"]
        self.server = subprocess.Popen(
            [*program, *self._words], stdout=subprocess.PIPE, text=True
        )
        said = ""
        while "http" not in said:
            said = self.server.stdout.readline()
            if not said:
                raise SystemExit("The program has ended.")
        self.browser.get(next(w for w in said.split() if w.startswith("http")))
        opened = time.perf_counter()
        self.wait()
        now = time.perf_counter()
        self.first = {"command": now - began, "page": now - opened}
        self.browser.execute_script(WATCH)

    def kill(self) -> None:
        """SIGKILL."""
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        self.kills += 1

    def wait(self) -> None:
        """Wait until the page accepts keys."""
        ready = "return document.getElementById('pictures')?.ariaBusy === 'false'"
        while not self.browser.execute_script(ready):
            time.sleep(0.01)

    def press(self, key: str) -> None:
        """Press a key without waiting."""
        event = {"key": key, "code": "", "text": "\r" if key == "Enter" else key}
        for kind in ("keyDown", "keyUp"):
            self.browser.execute_cdp_cmd(
                "Input.dispatchKeyEvent", {"type": kind, **event}
            )

    def press_and_wait(self, key: str) -> float:
        """Press a key; returns the seconds until the result is drawn."""
        self.browser.execute_script("taken.length = 0")
        self.press(key)
        while not (taken := self.browser.execute_script("return taken")):
            time.sleep(0.005)
        return taken[0] / 1e3

    def finished(self) -> bool:
        """Whether the page says that everything is decided."""
        return "Every" in self.browser.execute_script("return message.innerText")

    def memory(self) -> int:
        """MiB of the program, without those of files that it maps; Linux only."""
        status = pathlib.Path(f"/proc/{self.server.pid}/status").read_text()
        line = next(x for x in status.splitlines() if x.startswith("RssAnon"))
        return int(line.split()[1]) // 1024

    def close(self) -> None:
        """End both."""
        self.browser.quit()
        self.server.kill()
        self.server.wait()


class Person:
    """A simulated person who knows the labels, and sometimes errs."""

    def __init__(
        self, store: ImageStore, table: pairs.PairTable, errors: float, look: float
    ) -> None:
        """Nothing is decided yet."""
        self._labels, self._errors, self._look = store.labels, errors, look
        self._rows = {name: row for row, name in enumerate(store.ids)}
        images = zip(table.first.tolist(), table.second.tolist(), strict=True)
        self._pairs = {both: pair for pair, both in enumerate(images)}
        self._random = random.Random(0)
        self.opinions: dict[int, bool] = {}  # Of pairs: whether it is right.
        self.kept: dict[int, bool] = {}  # What the page has shown as kept.
        self.keys = 0
        self.seconds: list[float] = []
        self.sheets: list[int] = []

    def judge(self, pair: int, rows: list[int]) -> bool:
        """Whether a pair is right; the answer is always the same."""
        if pair not in self.opinions:
            first, second = self._labels[rows]
            wrong = self._random.random() < self._errors
            self.opinions[pair] = bool(first == second) != wrong
        return self.opinions[pair]

    def mark(self, page: Page) -> dict[int, bool]:
        """Look at a sheet, and press the keys of the wrong pairs."""
        tiles = page.browser.execute_script(SHEET)
        time.sleep(max(self._look * len(tiles), GUARD))
        said = {pair: self.judge(pair, rows) for _, pair, rows, _ in tiles}
        toggled = {
            key for key, pair, _, marked in tiles if said[pair] == marked
        }  # Those that are marked otherwise.
        if len(toggled) > len(tiles) / 2:
            page.press_and_wait("0")
            toggled = {key for key, *_ in tiles} - toggled
            self.keys += 1
        for key in sorted(toggled):
            page.press_and_wait(key)
        self.keys += len(toggled)
        return said

    def decide_sheet(self, page: Page, kill: bool) -> None:
        """A sheet; the server may be killed at some moment after Enter."""
        said = self.mark(page)
        self.keys += 1
        if not kill:
            self.seconds.append(page.press_and_wait("Enter"))
            self.kept |= said
            self.sheets.append(len(said))
            return
        page.browser.execute_script("taken.length = 0")
        page.press("Enter")
        time.sleep(self._random.uniform(0, 0.1))
        page.kill()
        shown = page.browser.execute_script(SHEET)
        if {pair for _, pair, *_ in shown}.isdisjoint(said):
            self.kept |= said  # The next sheet was shown already.
        page.start()

    def decide_pair(self, page: Page) -> None:
        """One pair, one key."""
        names = page.browser.execute_script(NAMES)
        rows = [self._rows[name] for name in names]
        pair = self._pairs[tuple(rows)]
        time.sleep(max(self._look, GUARD))
        right = self.judge(pair, rows)
        self.keys += 1
        self.seconds.append(page.press_and_wait("Enter" if right else "x"))
        self.kept[pair] = right
        self.sheets.append(1)

    def describe(self, way: str) -> list[str]:
        """A row of the table."""
        decided = len(self.kept)
        page, keys = sum(self.seconds) / sum(self.sheets), self.keys / decided
        rates = [3600 / (look + page + KEY * keys) for look in LOOKS]
        return [
            way,
            f"{decided:,}",
            f"{statistics.mean(self.sheets):.1f}",
            *spread(self.seconds, "{:.3f}".format),
            f"{page:.3f}",
            f"{keys:.2f}",
            *(f"{rate:,.0f}" for rate in rates),
        ]


HEAD = (
    *("way", "pairs", "a sheet", "seconds a sheet", "range", "seconds a pair"),
    *("keys a pair", *(f"pairs an hour at {look} s" for look in LOOKS)),
)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, help="with labels")
    parser.add_argument("--split", default="all")
    parser.add_argument(
        "--pairs", required=True, help="a table, whose first pairs are used"
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--decide", type=int, help="stop after this number of pairs")
    parser.add_argument("--single", type=int, default=200, help="one by one")
    parser.add_argument("--make", type=int, default=100, help="pairs to make")
    parser.add_argument("--errors", type=float, default=0.02)
    parser.add_argument(
        "--look", type=float, default=0.0, help="seconds to look at a pair"
    )
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--out", help="file of JSON lines to append to")
    options = parser.parse_args(words)
    store = open_store(options.store, options.split)
    table = pairs.load_table(options.pairs, store)
    print(table_head(HEAD))
    with tempfile.TemporaryDirectory() as folder:
        numbers = {
            "sheets": by_sheets(store, table, pathlib.Path(folder), options),
            "single": one_by_one(store, table, pathlib.Path(folder), options),
            "made": making(store, table, pathlib.Path(folder), options),
        }
    for name, value in numbers["sheets"].items():
        if name != "seconds of sheets":
            print(f"{name}: {value:.3g}")
    append_json(options.out, vars(options) | numbers)


def open_page(store, table, folder, count, options) -> tuple[pairs.PairTable, Page]:
    """The page of the first pairs of a table."""
    table = table.take(np.arange(min(count, len(table))), "the first")
    pairs.save_table(folder / f"{count}.csv", table, store)
    return table, Page([*words_of(options), f"--pairs={folder / f'{count}.csv'}"])


def words_of(options) -> list[str]:
    """The flags that name the images."""
    return [f"--store={options.store}", f"--split={options.split}"]


def by_sheets(store, table, folder, options) -> dict[str, Any]:
    """All pairs, a sheet at a time; the server is killed at times."""
    table, page = open_page(store, table, folder, options.count, options)
    person = Person(store, table, options.errors, options.look)
    first, sheets = page.first, 0
    enough = options.decide or len(table)
    while len(person.kept) < enough and not page.finished():
        # Kills are spread over the first half of the pairs.
        due = page.kills * enough / 2 <= len(person.kept) * options.kills
        person.decide_sheet(
            page, kill=sheets > 0 and due and page.kills < options.kills
        )
        sheets += 1
    memory = page.memory()
    page.browser.execute_script(
        "document.querySelector('#actions button:last-child').click()"
    )
    page.wait()
    page.close()
    kept = Curation(table, store, folder / f"{options.count}.decisions.csv").state
    lost = [
        pair
        for pair, right in person.kept.items()
        if kept.status[pair] != (ACCEPTED if right else REJECTED)
    ]
    clean = pairs.load_table(folder / f"{options.count}.curated.csv", store)
    before, after = (
        float((store.labels[x.first] == store.labels[x.second]).mean())
        for x in (table.take(kept.status != UNDECIDED, "decided"), clean)
    )
    right, wrong = before * (1 - options.errors), (1 - before) * options.errors
    print(table_row(person.describe("sheets")), flush=True)
    if lost:
        raise SystemExit(f"{len(lost)} decisions were lost: pairs {lost[:20]}.")
    return {
        "seconds until the first sheet, from the command": first["command"],
        "seconds until the first sheet, from the address": first["page"],
        "kills": page.kills,
        "decisions lost": len(lost),
        "memory of the program in MiB": memory,
        "precision of the pairs": before,
        "precision of the exported table": after,
        "precision to expect of such a person": right / (right + wrong),
        "seconds of sheets": person.seconds,
    }


def one_by_one(store, table, folder, options) -> list[float]:
    """Some pairs one by one, as before there were sheets."""
    table, page = open_page(store, table, folder, options.single, options)
    person = Person(store, table, options.errors, options.look)
    button = "[...document.querySelectorAll('#actions button')]"
    page.browser.execute_script(
        f"{button}.find(b => b.innerText === 'one by one').click()"
    )
    page.wait()
    while len(person.kept) < len(table):
        person.decide_pair(page)
    page.close()
    print(table_row(person.describe("one by one")), flush=True)
    return person.seconds


def making(store, table, folder, options) -> list[float]:
    """Pairs of an image and the most similar one, with one key."""
    page = Page([*words_of(options), f"--out={folder / 'made.csv'}"])
    person = Person(store, table, options.errors, options.look)
    for made in range(options.make):
        time.sleep(max(options.look, GUARD))
        key = page.browser.execute_script(
            "return document.querySelector('#tiles .tile').dataset.key"
        )
        person.keys += 1
        person.seconds.append(page.press_and_wait(key))
        person.kept[made] = True
        person.sheets.append(1)
    page.close()
    print(table_row(person.describe("making")), flush=True)
    return person.seconds


if __name__ == "__main__":
    main()
