"""The program from its command line to its end."""

import contextlib
import http.client
import itertools
import signal
import socket
import subprocess
import threading

import numpy as np

from input_pipeline.curation.decisions import ACCEPTED, REJECTED, Curation
from tests.input_pipeline.curation.running import address, ask, command, running


def test_a_kill_loses_no_decision(folder):
    """What was answered is on the disk, whenever the program is killed."""
    path, store, table = folder
    answered = {}
    for kill in range(3):
        with running(command(path, store)) as server:
            url = address(server)
            mark = ask(f"{url}/sheet?count=1")["store"]
            timer = threading.Timer(0.1 + 0.05 * kill, server.kill)
            timer.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                for number in itertools.count():
                    turn, pair = divmod(number, len(table))
                    status = (ACCEPTED, REJECTED)[turn % 2]
                    step = {"pair": pair, "action": ("accept", "reject")[turn % 2]}
                    step["images"] = [int(table.first[pair]), int(table.second[pair])]
                    asked = {"store": mark, "decisions": [step]}
                    answered.pop(pair, None)  # Until it is answered it may be either.
                    ask(f"{url}/decide", asked)
                    answered[pair] = status
            timer.join()
    kept = Curation(table, store, path / "pairs.decisions.csv").state.status
    assert len(answered) >= 3
    assert {pair: kept[pair] for pair in answered} == answered


def test_an_encoder_sorts_pairs_and_finds_partners(folder):
    path, store, table = folder
    features = np.random.default_rng(0).normal(size=(len(store), 3))
    np.save(path / "features.npy", features)
    words = (f"--features={path / 'features.npy'}", "--within=all", "--max_uses=2")
    with running(command(path, store, *words)) as server:
        url = address(server)
        sheet = [pair["pair"] for pair in ask(f"{url}/sheet?count=9")["pairs"]]
        partners = ask(f"{url}/partners/0?count=99")["partners"]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = (unit[table.first] * unit[table.second]).sum(1)
    assert sheet == sorted((0, 1), key=lambda pair: -cosines[pair])
    found = [image["row"] for image in partners]
    first, second = table.first[0], table.second[0]
    assert set(found) == set(range(10)) - {first, second}  # Of both classes.
    assert found == sorted(found, key=lambda row: -(unit[row] @ unit[first]))


def test_the_program_merges_two_people(folder):
    path, store, table = folder
    for name, last in (("ann", "accept"), ("bob", "reject")):
        log = path / f"pairs.{name}.decisions.csv"
        curation = Curation(table, store, log, person=name)
        curation.decide((0, "accept"), (1, "reject"), (2, last))
    files = ",".join(str(path / f"pairs.{who}.decisions.csv") for who in ("ann", "bob"))
    with running(command(path, store, f"--merge={files}")) as server:
        said = server.stdout.readline(), server.stdout.readline()
        assert "both decided 3 pairs, 2 in the same way: Cohen's kappa 0.40." in said[0]
        assert said[1] == "Pairs to settle: 1.\n"
        url = address(server)
        sheet = ask(f"{url}/sheet?count=9")
        (asked,) = sheet["pairs"]
        assert asked["pair"] == 2 and asked["marks"] == ["ann: accepted, bob: rejected"]
        decision = {"pair": 2, "action": "accept"}
        decision["images"] = [image["row"] for image in asked["images"]]
        body = {"store": sheet["store"], "decisions": [decision]}
        assert ask(f"{url}/decide", body)["finished"].startswith("1 settled, 1 und")
        assert "2 accepted pairs are in" in ask(f"{url}/export", {})["message"]
    twice = command(path, store, f"--merge={files},{files}")
    done = subprocess.run(twice, capture_output=True, text=True)
    assert done.returncode == 2 and "two files of ann" in done.stderr
    with running(command(path, store, f"--merge={files}")) as server:
        server.stdout.readline()
        assert server.stdout.readline() == "Pairs to settle: 0.\n"
    assert ",ann and bob,20" in (path / "pairs.merged.curated.csv").read_text()


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
    assert (
        said == f"\nStopped. The decisions are in {log}; the same command continues.\n"
    )
