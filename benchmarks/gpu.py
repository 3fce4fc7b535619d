"""Run all measurements on a GPU in the order of their value, within a number of minutes.

    python -m benchmarks.gpu --minutes=12 --out=gpu
    python -m benchmarks.gpu --minutes=60 --out=/tmp/gpu --small      # tried on a CPU

Each part has commands of its own, which have the device for themselves. A part that would not
fit into the time that is left is skipped; a command that takes more than twice as long as
thought is stopped, and keeps what it has said. Programs that several parts need are compiled
once. OUT/gpu.md has device, versions and each command, its time and its output as soon as it
ends, OUT/NAME.txt while it runs; rows are in OUT/rows.jsonl.
`--parts` chooses, `--list` shows what there is.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

# No jax here: a process that asks for a GPU takes most of its memory.

ABOUT = (
    "import platform; from sp_jax import versions; import jax; "
    "print(platform.platform(), '; Python', platform.python_version()); "
    "print(', '.join(f'{k} {v}' for k, v in versions.versions().items())); "
    "print(versions.describe_devices(), jax.devices()[0].memory_stats())"
)


class Part(NamedTuple):
    """A measurement.

    Attributes:
        name: of its files.
        minutes: that it takes on an H200; it does not begin with less.
        why: it is measured.
        commands: words behind `python`, one after the other.
    """

    name: str
    minutes: float
    why: str
    commands: tuple[list[str], ...]


def make_parts(out: pathlib.Path, small: bool) -> list[Part]:
    """All measurements, the most valuable first; `small` makes them fit a CPU."""
    resnet, vit = ("resnet18", "vit_tiny") if small else ("resnet50", "vit_small")
    both = vit if small else f"{vit},{vit}:cudnn"  # a CPU has no cuDNN
    rows, trace = (shlex.quote(str(out / name)) for name in ("rows.jsonl", "trace"))
    few = "--steps=2 --rounds=1" if small else "--steps=50 --rounds=3"
    batch = "--batch_size=4" if small else ""
    table = f"-m benchmarks.throughput --out={rows} {batch} {'--images=0' * small}"
    step = f"{table} {few} --placements=device"
    calls = "--steps_per_call=1,2" if small else "--steps_per_call=1,10,50"
    checks = f"-m benchmarks.gpu_checks {'--width=4 --epochs=0.2' * small}"
    images, seeds = (200, 1) if small else (50_000, 2)
    detector = f"--config=scenes {batch} --steps=1" if small else "--config=voc"
    # Without the tests' own settings: they need packages that nothing else here does.
    alone = "-p no:cacheprovider --noconftest -c /dev/null --rootdir=."
    test = f"-m pytest -q {alone} tests/models/test_attention.py"

    def part(name: str, minutes: float, why: str, *commands: str) -> Part:
        return Part(name, minutes, why, tuple(map(shlex.split, commands)))

    return [
        part("device", 0.1, "what this is", f"-c {shlex.quote(ABOUT)}"),
        part(
            "resident",
            2.5,
            "is the speed of an early commit, 25,181 pairs/s on an H200, kept?",
            f"{step} --methods=simclr --models={resnet} {calls}",
        ),
        part(
            "attention",
            3.5,
            "attention in one kernel: is it equal, and faster?",
            f"{test} -k cudnn_is",
            f"{step} --methods=simclr --models={both}",
        ),
        part("dino", 3.0, "DINO with both", f"{step} --methods=dino --models={both}"),
        part(
            "methods",
            2.5,
            "two more methods",
            f"{step} --methods=byol,vicreg --models={resnet}",
        ),
        part(
            "streamed",
            1.5,
            "images from the host, to be compared with images on the device",
            f"{table} {few} --placements=stream --methods=simclr --models={resnet}",
        ),
        part(
            "trace",
            1.0,
            "where the time of ten steps goes",
            f"{table} --placements=device --methods=simclr --models={resnet} "
            f"--steps_per_call=10 --steps=10 --rounds=1 --trace={trace}",
            f"-m benchmarks.trace {trace}",
        ),
        part(
            "resume",
            1.5,
            "killed and resumed equals uninterrupted",
            f"{checks} --what=resume",
        ),
        part(
            "precision",
            4.0,
            "bfloat16 beside float32 at equal steps",
            f"{checks} --what=precision --seeds={seeds}",
        ),
        part(
            "peers",
            4.0,
            "PyTorch, lightly and stable-pretraining's JAX beside us, in turns",
            f"-m benchmarks.peers --models={resnet},{vit} --out={rows} {batch} {few}",
        ),
        part(
            "probe",
            1.5,
            "the sweep of a linear probe on as many images as CIFAR-10 has",
            f"-m benchmarks.probe --own --rounds=1 --model={resnet} --images={images}",
        ),
        part(
            "detection",
            2.5,
            "a step of the detector",
            f"-m benchmarks.detection --rounds=1 {detector}",
        ),
        part(
            "memory",
            2.0,
            "what computing twice and chunks save, and what they cost",
            f"-m benchmarks.floor --what=memory --run --models={vit} {batch} {few} "
            f"--settings=plain,remat,chunks=4 --out={rows}",
        ),
    ]


def run(
    command: Sequence[str], log: pathlib.Path, seconds: float, cache: str = ""
) -> str:
    """Run a Python command with its output in a file; returns how it ended.

    Args:
        command: words behind `python`.
        log: file to append its output to.
        seconds: after which it is stopped.
        cache: folder of compiled programs; "": none.
    """
    # An error if there is a GPU that jax cannot use; FLOPs are counted on the CPU.
    gpu = any(pathlib.Path("/dev").glob("nvidia[0-9]*"))
    environment = {
        "JAX_PLATFORMS": "cuda,cpu" if gpu else "cpu",
        "XLA_FLAGS": "",
        "PYTHONUNBUFFERED": "1",  # what it has said is there if it is stopped
    }
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    with open(log, "a") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment | os.environ,
            process_group=0,
        )
        try:
            code = process.wait(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            return f"stopped after {max(seconds, 1):.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            process.wait()
    return f"failed with code {code}" if code else "done"


def main(argv: list[str]) -> None:
    """Run the parts that fit, and record each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--minutes", type=float, default=12, help="total time")
    add("--out", type=pathlib.Path, required=True, help="folder of the results")
    add("--parts", type=lambda text: text.split(","), help="names; all by default")
    add("--small", action="store_true", help="small sizes, for a CPU")
    add("--list", action="store_true", help="only list the parts")
    flags = parser.parse_args(argv)
    end = time.monotonic() + 60 * flags.minutes
    parts = make_parts(flags.out, flags.small)
    names = [part.name for part in parts]
    if unknown := set(flags.parts or ()) - set(names):
        parser.error(f"no part {min(unknown)!r}: choose from {', '.join(names)}")
    chosen = [part for part in parts if part.name in (flags.parts or names)]
    if flags.list:
        for part in chosen:
            print(f"{part.name}: {part.why} ({part.minutes:g} min)")
        return
    flags.out.mkdir(parents=True, exist_ok=True)
    page = flags.out / "gpu.md"

    def say(text: str) -> None:
        print(text, flush=True)
        with open(page, "a") as file:
            file.write(f"{text}\n")

    now = datetime.datetime.now(datetime.UTC)
    say(f"# {now:%Y-%m-%d %H:%M} UTC, {flags.minutes:g} minutes\n")
    with tempfile.TemporaryDirectory() as cache:
        for part in chosen:
            left = end - time.monotonic()
            if left < 60 * part.minutes:
                say(f"## {part.name}: skipped, {left / 60:.1f} minutes are left\n")
                continue
            say(f"## {part.name}: {part.why}\n")
            log = flags.out / f"{part.name}.txt"
            log.unlink(missing_ok=True)
            for command in part.commands:
                started = time.monotonic()
                before = log.stat().st_size if log.exists() else 0
                limit = min(end - started, 60 + 120 * part.minutes)
                outcome = run(command, log, limit, cache)
                took = time.monotonic() - started
                output = log.read_bytes()[before:].decode(errors="replace").strip()
                say(f"`{shlex.join(['python', *command])}`: {outcome}, {took:.0f} s\n")
                say(f"```\n{output}\n```\n")


if __name__ == "__main__":
    main(sys.argv[1:])
