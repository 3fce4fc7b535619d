"""What a step sends between devices, and how fast it would be on many.

    python -m benchmarks.scaling --method=simclr --model=resnet50 --step_ms=10.16

Compiles the trainer's step for eight devices of a CPU, without running it, and counts the
collective operations and their bytes. From these, from the time of a step on one device and
from the rates of the links it predicts the step on 1 to 64 devices, each with the same share
of the batch. The prediction hides nothing: every collective waits for the one before, and
nothing is computed meanwhile. So it is a lower bound, if latencies and rates are right.
"""

import argparse
import os
import sys

from benchmarks.hlo import COLLECTIVES, find_collectives

DEVICES = 8


def collective_ms(size: float, devices: int, links: argparse.Namespace) -> float:
    """An all-reduce of some bytes: in the host, between hosts, in the host.

    Args:
        size: bytes that each device has before and after.
        devices: how many; hosts have `links.per_host`.
        links: "rate" and "network_rate" in GB/s for each device in one direction, "latency"
            and "network_latency" in microseconds for each operation.
    """
    if devices == 1:
        return 0.0
    local = min(devices, links.per_host)
    hosts = devices // local
    ms = 2 * (local - 1) / local * size / links.rate / 1e6
    if hosts == 1:
        return ms + links.latency / 1e3
    ms += 2 * (hosts - 1) / hosts * size / local / links.network_rate / 1e6
    return ms + links.network_latency / 1e3


def predict(found: dict[str, list[int]], devices: int, flags: argparse.Namespace):
    """Milliseconds of a step. A gather moves half of what an all-reduce does."""
    total = flags.step_ms
    for kind, sizes in found.items():
        share = 1.0 if kind == "all-reduce" else 0.5
        total += sum(collective_ms(share * size, devices, flags) for size in sizes)
    return total


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags."""
    form = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=form
    )
    add = parser.add_argument
    add("--method", default="simclr", help="one with a recipe in configs/")
    add("--model", default="resnet50", help="resnet18 | resnet50:small | vit_small ...")
    add("--batch_size", type=int, default=256, help="pairs on each device")
    add("--fsdp", type=int, default=1, help="devices that share one copy of the state")
    add("--step_ms", type=float, required=True, help="measured on one device")
    add("--per_host", type=int, default=8, help="devices of a host")
    add("--rate", type=float, default=450.0, help="GB/s in a host (NVLink 4)")
    add("--network_rate", type=float, default=50.0, help="GB/s (InfiniBand NDR)")
    add("--latency", type=float, default=20.0, help="us of an operation in a host")
    add("--network_latency", type=float, default=40.0, help="us between hosts")
    return parser.parse_args(argv)


def compile_text(flags: argparse.Namespace) -> tuple[str, float]:
    """The step, compiled for `DEVICES` devices; the bytes of its arguments on each."""
    from benchmarks.training import lower_step, make_config
    from sp_jax.sharding import make_mesh

    config = make_config(flags.method, flags.model, DEVICES * flags.batch_size)
    config.dtype = "float32"
    compiled = lower_step(config, make_mesh(fsdp=flags.fsdp)).compile()
    return compiled.as_text(), compiled.memory_analysis().argument_size_in_bytes


def main(argv: list[str]) -> None:
    """Count, predict and print two Markdown tables."""
    flags = parse(argv)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={DEVICES} "
        "--xla_backend_optimization_level=0"
    )
    text, held = compile_text(flags)
    found = find_collectives(text)
    print(f"State and batch on a device: {held / 1e6:.0f} MB.\n")
    print("| operation | count | MB in all | largest, MB |\n|---|---|---|---|")
    for kind in filter(found.get, COLLECTIVES):
        sizes = found[kind]
        total, largest = sum(sizes) / 1e6, max(sizes) / 1e6
        print(f"| {kind} | {len(sizes)} | {total:.1f} | {largest:.1f} |")
    print("\n| devices | step, ms | pairs/s | efficiency |\n|---|---|---|---|")
    for devices in (1, 2, 4, 8, 16, 32, 64):
        ms = predict(found, devices, flags)
        rate = devices * flags.batch_size / ms * 1e3
        part = flags.step_ms / ms
        print(f"| {devices} | {ms:.2f} | {rate:,.0f} | {part:.0%} |")


if __name__ == "__main__":
    main(sys.argv[1:])
