"""The demands of a compiled step, without running it: kernels, memory or collectives.

    pip install "jax[cuda13]"          # the compiler; no GPU is needed
    python -m benchmarks.floor --methods=simclr,dino --models=resnet50,vit_small
    make floor                         # measures benchmarks/floor.jsonl again, and compares
    python -m benchmarks.floor --what=memory                # --run times the steps, too
    python -m benchmarks.floor --what=collectives --step_ms=10.16

Compiles the trainer's step from uint8 images to the update, and prints a Markdown table.

kernels: in bfloat16, for an H200 that is not there. What a step takes at least:

* TFLOP: operations as XLA counts them before it optimises.
* kernels, GB: launches of a step, and the bytes of their operands and results.
* the rest: the longer of TFLOP / peak and GB / bandwidth of the data sheets, and the
  pairs a second that this allows.

Nothing is tried on a device. So XLA takes cuBLAS and cuDNN where it could write a product
itself, and where there is a GPU the program may have fewer kernels and bytes.

memory: for the devices that are there, plain, rematerialised and in chunks:

* kept: bytes that wait between the forward and the backward pass, as JAX counts them
  before compilation; parameters are not counted. All devices together.
* temporaries: what the compiled step allocates on one device beside its arguments (the
  state and the batch), as its compiler says. It may have cut or moved what JAX asked for:
  XLA on a CPU merges the second computation of `remat` with the first.
* with --run ms a step: median and range of the rounds, in which all settings take turns;
  then the median of the ratios to the first setting within a round. A step that would not
  fit into the device's memory is not run.

collectives: for eight devices of a CPU, the operations between them and their bytes. From
these, from the time of a step on one device and from the rates of the links it predicts the
step on 1 to 64 devices, each with the same share of the batch. The prediction hides nothing:
every collective waits for the one before, and nothing is computed meanwhile. So it is a lower
bound, if latencies and rates are right.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

from benchmarks.common import append_json, spread, table_head, table_row, time_steps
from benchmarks.hlo import COLLECTIVES, find_collectives, find_kernels

DEFAULTS = {  # methods and models
    "kernels": (
        "simclr,byol,vicreg,dino",
        "resnet18,resnet50,resnet50:small,vit_small",
    ),
    "memory": ("simclr", "resnet50,vit_small"),
    "collectives": ("simclr", "resnet50"),
}
DEVICES = 8  # of collectives
GROWTH = 0.05  # of kernels or bytes, beyond which --known fails
# Dense bfloat16 FLOP/s and bytes/s, of the data sheets.
CARDS = {"A100 80 GB": (312e12, 2.04e12), "H200": (989e12, 4.8e12)}
TARGET = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 150000000000
  memory_bandwidth: 4800000000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H200"
"""


def make_target():
    """The mesh of one H200, for the compiler only.

    Raises:
        RuntimeError: jax was installed without its CUDA plugin.
    """
    from jax.experimental import topologies

    from sp_jax.sharding import make_mesh

    try:
        topology = topologies.get_topology_desc(
            "H200", "cuda", target_config=TARGET, topology="1x1x1"
        )
    except Exception as error:
        raise RuntimeError(
            'The compiler for GPUs is missing: pip install "jax[cuda13]" of the same '
            "version as jax. No GPU is needed."
        ) from error
    return make_mesh(topology.devices)


def configs_of(flags: argparse.Namespace, batch_size: int) -> Iterator[tuple]:
    """Method, model and config for each pair of the flags."""
    from benchmarks.training import make_config

    for method, model in itertools.product(flags.methods, flags.models):
        yield method, model, make_config(method, model, batch_size)


Rows = dict[tuple[str, str], dict[str, Any]]  # by method and model


def read_known(path: str | None) -> Rows:
    """The rows that `--out` wrote, the last one of each program."""
    if not path:
        return {}
    lines = map(json.loads, pathlib.Path(path).read_text().splitlines())
    return {(row["method"], row["model"]): row for row in lines}


def check_version(known: Rows, path: str | None, jax_version: str) -> None:
    """Exit if the rows are of another jax, whose compiler makes other programs."""
    for version in {row["jax"] for row in known.values()} - {jax_version}:
        sys.exit(
            f"error: {path} was measured with jax {version}, and this is jax {jax_version}: "
            f'pip install "jax[cuda13]=={version}", or choose another file by --known.'
        )


def grown(row: dict[str, Any], known: Rows) -> list[str]:
    """The numbers in which a program exceeds its known row by more than `GROWTH`."""
    before = known.get((row["method"], row["model"]), row)
    return [
        f"{row['method']} {row['model']}: {before[name]:,} {name} before, {row[name]:,} now"
        for name in ("kernels", "bytes")
        if row[name] > (1 + GROWTH) * before[name]
    ]


def kernels(flags: argparse.Namespace) -> None:
    """Print the floor of each step on each card."""
    # There is nothing to time kernels on, and Triton's are chosen by time.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    )
    try:
        mesh = make_target()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    import jax

    from benchmarks.training import count_flops, lower_step, make_config

    known, more = read_known(flags.known), []
    check_version(known, flags.known, jax.__version__)
    head = ["method", "model", "TFLOP", "kernels", "GB"]
    for card in CARDS:
        head += [f"{card}, at least", "pairs/s, at most"]
    print(table_head(head), flush=True)
    pairs = known or itertools.product(flags.methods, flags.models)
    for method, model in pairs:
        config = make_config(method, model, flags.batch_size)
        config.dtype = "bfloat16"
        if flags.image_size:
            config.image_size = config.data.image_size = flags.image_size
        flops = count_flops(config, num_images=58_718)
        # Some layers ask what they will run on.
        with mock.patch.object(jax, "default_backend", lambda: "gpu"):
            lowered = lower_step(config, mesh)
        found = list(find_kernels(lowered.compile().as_text()))
        size = sum(kernel.bytes for kernel in found)
        cells = [method, model, f"{flops / 1e12:.2f}", f"{len(found):,}"]
        cells.append(f"{size / 1e9:.1f}")
        for peak, bandwidth in CARDS.values():
            compute, memory = flops / peak, size / bandwidth
            limit = "memory" if memory > compute else "arithmetic"
            cells.append(f"{1e3 * max(compute, memory):.1f} ms ({limit})")
            cells.append(f"{flags.batch_size / max(compute, memory):,.0f}")
        print(table_row(cells), flush=True)
        for kernel in sorted(found, key=lambda kernel: -kernel.bytes)[: flags.top]:
            print(f"{kernel.bytes / 1e6:9.1f} MB  {kernel.name}  {kernel.origin}")
        row = {"method": method, "model": model, "flops": flops, "bytes": size}
        row |= {"what": "kernels", "kernels": len(found), "jax": jax.__version__}
        append_json(flags.out, row)
        more += grown(row, known)
    if more:
        sys.exit(f"error: more than {GROWTH:.0%} was added:\n" + "\n".join(more))


def memory(flags: argparse.Namespace) -> None:
    """Print the memory of each setting's step, and with --run its time."""
    import jax

    from sp_jax.sharding import make_mesh

    mesh = make_mesh()
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    print(f"{device}, {flags.batch_size} pairs, dtype {flags.dtype}\n")
    columns = ("model", "setting", "kept, MB", "temporaries, MB", "ms a step", "range")
    print(table_head([*columns, "x"]), flush=True)
    for method, model, config in configs_of(flags, flags.batch_size):
        config.dtype = flags.dtype
        rows = measure_memory(config, flags, mesh)
        for setting, row in rows.items():
            cells = [model, setting, f"{row['kept']:,.0f}", f"{row['temporary']:,.0f}"]
            first = next(iter(rows.values()))["ms"]
            ratios = [a / b for a, b in zip(row["ms"], first, strict=False)]
            cells += spread(row["ms"], ".1f") if row["ms"] else ["", ""]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
            print(table_row(cells), flush=True)
            about = {"what": "memory", "method": method, "model": model}
            about |= {"setting": setting, "device": device, "jax": jax.__version__}
            about |= {"batch_size": flags.batch_size, "dtype": flags.dtype}
            append_json(flags.out, about | row)


def with_setting(config: Any, setting: str) -> Any:
    """A copy of a config with a setting such as "remat+chunks=4"."""
    config = config.copy_and_resolve_references()
    for part in setting.split("+"):
        name, _, value = part.partition("=")
        if name == "remat" and not value:
            config.model.remat = True
        elif name == "chunks" and value.isdecimal():
            config.model.chunks = int(value)
        elif part != "plain":
            sys.exit(f"error: there is no setting {setting!r}.")
    return config


def measure_memory(
    config: Any, flags: argparse.Namespace, mesh: Any
) -> dict[str, dict[str, Any]]:
    """MB that each setting keeps and allocates; milliseconds of a step in each round."""
    import jax

    from benchmarks.training import kept_bytes, lower_step, noise_batch
    from sp_jax.methods import RunSize
    from sp_jax.recipe import make_recipe
    from sp_jax.train.step import init_state

    lengths = RunSize(1000, 10, flags.batch_size, 10_000)
    configs = {name: with_setting(config, name) for name in flags.settings}
    lowered = [lower_step(one, mesh, lengths.num_images) for one in configs.values()]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        compiled = list(pool.map(lambda step: step.compile(), lowered))
    rows, programs = {}, {}
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", float("inf"))
    batch = noise_batch(config, mesh) if flags.run else None
    for (name, one), program in zip(configs.items(), compiled, strict=True):
        plan = program.memory_analysis()
        rows[name] = {
            "kept": kept_bytes(one, lengths) / 1e6,
            "temporary": plan.temp_size_in_bytes / 1e6,
            "argument": plan.argument_size_in_bytes / 1e6,
            "ms": [],
        }
        if plan.temp_size_in_bytes + plan.argument_size_in_bytes < limit:
            programs[name] = program, batch
    if flags.run:
        recipe = make_recipe(config.to_dict(), lengths)
        state = init_state(recipe, config.seed, mesh)  # the same for all
        found, _, _ = time_steps(programs, state, flags.steps, flags.rounds)
        for name, ms in found.items():
            rows[name]["ms"] = ms
    return rows


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


def compile_text(config: Any, fsdp: int) -> tuple[str, float]:
    """The step, compiled for `DEVICES` devices; the bytes of its arguments on each."""
    from benchmarks.training import lower_step
    from sp_jax.sharding import make_mesh

    config.dtype = "float32"
    compiled = lower_step(config, make_mesh(fsdp=fsdp)).compile()
    return compiled.as_text(), compiled.memory_analysis().argument_size_in_bytes


def collectives(flags: argparse.Namespace) -> None:
    """Print the operations between devices, and with --step_ms the prediction."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={DEVICES} "
        "--xla_backend_optimization_level=0"
    )
    for method, model, config in configs_of(flags, DEVICES * flags.batch_size):
        text, held = compile_text(config, flags.fsdp)
        found = find_collectives(text)
        print(f"{method}, {model}: state and batch on a device {held / 1e6:.0f} MB.\n")
        print(table_head(("operation", "count", "MB in all", "largest, MB")))
        for kind in filter(found.get, COLLECTIVES):
            sizes = found[kind]
            total, largest = sum(sizes) / 1e6, max(sizes) / 1e6
            print(table_row((kind, len(sizes), f"{total:.1f}", f"{largest:.1f}")))
        row = {"what": "collectives", "method": method, "model": model, "held": held}
        append_json(flags.out, row | {"bytes": dict(found)})
        if not flags.step_ms:
            continue
        print("\n" + table_head(("devices", "step, ms", "pairs/s", "efficiency")))
        for devices in (1, 2, 4, 8, 16, 32, 64):
            ms = predict(found, devices, flags)
            speed, part = devices * flags.batch_size / ms * 1e3, flags.step_ms / ms
            print(table_row((devices, f"{ms:.2f}", f"{speed:,.0f}", f"{part:.0%}")))


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags."""
    form = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=form
    )
    add, several = parser.add_argument, {"type": lambda text: text.split(",")}
    add("--what", choices=list(DEFAULTS), default="kernels", help="what to measure")
    add("--methods", help="with a recipe in configs/", **several)
    add("--models", help="resnet18, resnet50:small, vit_small ...", **several)
    add("--batch_size", type=int, default=256, help="pairs; collectives: a device")
    add("--image_size", type=int, help="kernels: side of the views and stored images")
    add("--out", help="file for JSON lines, appended")
    known = "kernels: rows of --out to measure again; fails if one has grown by 5 %%"
    add("--known", help=known)
    add("--top", type=int, default=0, help="kernels: largest ones to list")
    settings = "plain,remat,chunks=2,chunks=4,chunks=8"
    add("--settings", default=settings, help="memory: also remat+chunks=N", **several)
    add("--dtype", default="auto", help="memory: like config.dtype")
    add("--run", action="store_true", help="memory: time the steps")
    add(
        "--steps", type=int, default=10, help="memory: steps of each setting in a round"
    )
    add("--rounds", type=int, default=3, help="memory")
    add("--fsdp", type=int, default=1, help="collectives: devices that share one state")
    add(
        "--step_ms",
        type=float,
        help="collectives: milliseconds of a step on one device",
    )
    add("--per_host", type=int, default=8, help="collectives: devices of a host")
    add("--rate", type=float, default=450.0, help="GB/s in a host (NVLink 4)")
    add("--network_rate", type=float, default=50.0, help="GB/s (InfiniBand NDR)")
    add("--latency", type=float, default=20.0, help="us of an operation in a host")
    add("--network_latency", type=float, default=40.0, help="us between hosts")
    flags = parser.parse_args(argv)
    methods, models = (text.split(",") for text in DEFAULTS[flags.what])
    flags.methods, flags.models = flags.methods or methods, flags.models or models
    return flags


def main(argv: list[str]) -> None:
    """Compile, count and print."""
    flags = parse(argv)
    {"kernels": kernels, "memory": memory, "collectives": collectives}[flags.what](
        flags
    )


if __name__ == "__main__":
    main(sys.argv[1:])
