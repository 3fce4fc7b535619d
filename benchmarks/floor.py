"""The least time of a step on a GPU, without a GPU: its operations and its bytes.

    pip install "jax[cuda13]"          # the compiler; no GPU is needed
    python -m benchmarks.floor --methods=simclr,dino --models=resnet50,vit_small

Compiles the trainer's step in bfloat16 for an H200 that is not there, and reads the program:

* TFLOP: operations as XLA counts them before it optimises.
* kernels, GB: launches of a step, and the bytes of their operands and results.
* the rest: the longer of TFLOP / peak and GB / bandwidth of the data sheets, and the
  pairs a second that this allows.

Nothing is tried on a device. So XLA takes cuBLAS and cuDNN where it could write a product
itself, and where there is a GPU the program may have fewer kernels and bytes.
"""

import argparse
import os
import sys
from unittest import mock

from benchmarks.hlo import find_kernels

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


def row(method: str, model: str, batch_size: int, mesh) -> tuple[str, list]:
    """A Markdown row, and the kernels of the step."""
    import jax

    from benchmarks.training import count_flops, lower_step, make_config

    config = make_config(method, model, batch_size)
    config.dtype = "bfloat16"
    flops = count_flops(config, num_images=58_718)
    # Some layers ask what they will run on.
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        lowered = lower_step(config, mesh)
    kernels = list(find_kernels(lowered.compile().as_text()))
    size = sum(kernel.bytes for kernel in kernels)
    cells = [method, model, f"{flops / 1e12:.2f}", f"{len(kernels):,}"]
    cells.append(f"{size / 1e9:.1f}")
    for peak, rate in CARDS.values():
        compute, memory = flops / peak, size / rate
        limit = "memory" if memory > compute else "arithmetic"
        cells.append(f"{1e3 * max(compute, memory):.1f} ms ({limit})")
        cells.append(f"{batch_size / max(compute, memory):,.0f}")
    return f"| {' | '.join(cells)} |", kernels


def main(argv: list[str]) -> None:
    """Compile, count and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--methods", default="simclr,byol,vicreg,dino")
    parser.add_argument(
        "--models", default="resnet18,resnet50,resnet50:small,vit_small"
    )
    parser.add_argument("--batch_size", type=int, default=256, help="pairs")
    parser.add_argument("--top", type=int, default=0, help="largest kernels to list")
    flags = parser.parse_args(argv)
    os.environ["JAX_PLATFORMS"] = "cpu"
    # There is nothing to time kernels on, and Triton's are chosen by time.
    os.environ["XLA_FLAGS"] = (
        "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    )
    try:
        mesh = make_target()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    header = ["method", "model", "TFLOP", "kernels", "GB"]
    for card in CARDS:
        header += [f"{card}, at least", "pairs/s, at most"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for method in flags.methods.split(","):
        for model in flags.models.split(","):
            text, kernels = row(method, model, flags.batch_size, mesh)
            print(text, flush=True)
            largest = sorted(kernels, key=lambda kernel: -kernel.bytes)
            for kernel in largest[: flags.top]:
                print(f"{kernel.bytes / 1e6:9.1f} MB  {kernel.name}  {kernel.origin}")


if __name__ == "__main__":
    main(sys.argv[1:])
