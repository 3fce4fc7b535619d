"""Images per second of a detector's training step and test, and the memory that it takes.

    python -m benchmarks.detection                   # the full-size protocol of VOC
    python -m benchmarks.detection --config=scenes   # the small one, on a CPU

A random network on noise with twenty boxes an image: the work depends on the sizes only, but
for the suppression, which ends early where boxes overlap little. All sizes of the training, in
turns, round after round; upright images cost the same. Prints a Markdown table: milliseconds a
step (median, range of the rounds), images a second, and the bytes that the compiled step
allocates beside its arguments; then the hours of all steps, with equal shares of the sizes,
the test, and the largest memory in use that the device tells.

Detectron2's model zoo has, for its R50-C4 on VOC with 16 images on eight V100s, 0.537 s a step
and 0.081 s an image in testing.
"""

import concurrent.futures
import statistics
import time

import jax
import numpy as np
from absl import app, flags

from benchmarks.common import spread, table_head, table_row, take_turns, time_steps
from configs.eval import scenes_faster_rcnn_c4, voc_faster_rcnn_c4
from eval.detection import train
from sp_jax import xla_flags
from sp_jax.sharding import by_batch, make_mesh
from sp_jax.train.step import init_state, jit_step, make_step

CONFIGS = {"voc": voc_faster_rcnn_c4, "scenes": scenes_faster_rcnn_c4}
CLASSES, BOXES = 20, 20


def make_batch(rng, count: int, size: tuple[int, int], most: int) -> dict:
    """Noise with boxes of a tenth to a half of its sides, in the form of `Batches.batch`."""
    boxes = np.zeros((count, most, 4), np.float32)
    label = np.full((count, most), -1, np.int32)
    n = min(most, BOXES)
    sides = np.float32(size)[::-1]
    corner = rng.uniform(0, 0.5, (count, n, 2))
    boxes[:, :n] = np.concatenate(
        [corner, corner + rng.uniform(0.1, 0.5, (count, n, 2))], axis=-1
    ) * np.tile(sides, 2)
    label[:, :n] = rng.integers(0, CLASSES, (count, n))
    return {
        "image": rng.integers(0, 256, (count, *size, 3), np.uint8),
        "size": np.broadcast_to(np.int32(size), (count, 2)).copy(),
        "boxes": boxes,
        "label": label,
        "index": np.arange(count, dtype=np.int32),
    }


def main(argv: list[str]) -> None:
    """Measure and print."""
    del argv
    values = flags.FLAGS
    config = CONFIGS[values.config].get_config()
    if values.batch_size:
        config.batch_size = values.batch_size
    if values.remat is not None:
        config.remat = values.remat
    mesh, rng = make_mesh(), np.random.default_rng(0)
    backbone = train.open_backbone(config, "")
    detector, recipe = train.make_recipe(config, backbone, CLASSES)
    state = init_state(recipe, config.seed, mesh)
    step = make_step(recipe, mesh)
    device = jax.devices()[0]
    print(
        f"{jax.device_count()} x {device.device_kind}, {config.model.name}, batch "
        f"{config.batch_size}, dtype {backbone.module.dtype}, remat {config.remat}\n"
    )
    batches, lowered = {}, {}
    for size in config.data.sizes:
        batch = make_batch(rng, config.batch_size, size, config.data.max_boxes)
        batches[size] = jax.device_put(batch, by_batch(mesh))
        lowered[size] = jit_step(step, mesh).lower(state, batches[size])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        compiled = list(pool.map(lambda program: program.compile(), lowered.values()))
    programs, temporary = {}, {}
    for size, program in zip(lowered, compiled, strict=True):
        programs[size] = program, batches[size]
        temporary[size] = program.memory_analysis().temp_size_in_bytes

    milliseconds, state, metrics = time_steps(
        programs, state, values.steps, values.rounds
    )
    if not np.isfinite(float(metrics["loss"])):
        raise SystemExit("The loss is not finite: these numbers are worthless.")

    columns = ("size", "ms a step", "range", "images/s", "temporaries, GiB")
    print(table_head(columns))
    for size, times in milliseconds.items():
        speed = 1e3 * config.batch_size / statistics.median(times)
        cells = [f"{size[0]} x {size[1]}", *spread(times, ".1f"), f"{speed:.1f}"]
        print(table_row([*cells, f"{temporary[size] / 2**30:.2f}"]))
    mean = statistics.mean(map(statistics.median, milliseconds.values()))
    hours = mean * config.total_steps / 3.6e6
    print(f"\nAll {config.total_steps} steps: {hours:.2f} h.")
    _time_test(config, detector, state, rng, values.rounds, mesh)
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        print(f"Largest memory in use: {stats['peak_bytes_in_use'] / 2**30:.1f} GiB.")


def _time_test(config, detector, state, rng, rounds, mesh) -> None:
    count = -(-config.test_batch_size // mesh.size) * mesh.size
    batch = make_batch(rng, count, config.data.test_size, 1)
    images, size = jax.device_put((batch["image"], batch["size"]), by_batch(mesh))
    detect = jax.jit(detector.detect)

    def turn() -> float:
        started = time.perf_counter()
        jax.block_until_ready(detect(state.params, state.method_state, images, size))
        return (time.perf_counter() - started) / count

    times = take_turns({"test": turn}, rounds, warm_up=1)["test"]
    middle, limits = spread(times, ".4f")
    print(
        f"Test at {config.data.test_size[0]} x {config.data.test_size[1]}: {middle} s an "
        f"image ({limits}), {count} at a time."
    )


if __name__ == "__main__":
    flags.DEFINE_enum("config", "voc", list(CONFIGS), "Config in configs/eval.")
    flags.DEFINE_integer("batch_size", 0, "Images per step; 0: the config's.", 0)
    flags.DEFINE_bool("remat", None, "Compute blocks twice; the config's by default.")
    flags.DEFINE_integer("steps", 5, "Steps of each size in a round.", 1)
    flags.DEFINE_integer("rounds", 3, "Rounds that are counted.", 1)
    xla_flags.set_cpu_flags()
    app.run(main)
