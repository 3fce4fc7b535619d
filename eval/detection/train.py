"""The training of a detector: a run like a pre-training, in the same loop."""

import contextlib
import dataclasses
import functools
import io
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import sp_jax
from configs.eval import voc_faster_rcnn_c4
from eval.detection import average_precision
from eval.detection.data import Batches, BoxStore, make_dataset, open_boxes
from eval.detection.data import test_batches as batches_of
from eval.detection.draw_boxes import draw_detections
from eval.detection.network import Detector, Settings, load_backbone, make_detector
from eval.evaluator import Number
from eval.plots.figure import save_figure
from eval.results import versions, write_result
from input_pipeline.pairs import stream
from sp_jax import distributed, models, optim, validate
from sp_jax.augment import Augment
from sp_jax.backbone import Backbone
from sp_jax.domains import DETECTION, check_domains
from sp_jax.errors import UserError
from sp_jax.files import write_bytes
from sp_jax.methods import Method, RunSize
from sp_jax.models.config import compute_dtype
from sp_jax.recipe import Recipe
from sp_jax.sharding import by_batch, by_size, local_copy, make_mesh, replicated
from sp_jax.train.evaluation import Evaluation
from sp_jax.train.feed import StreamedFeed
from sp_jax.train.loop import fit
from sp_jax.train.step import TrainState, init_state, make_step
from sp_jax.train.workdir import claim_workdir

RULES = (
    optim.Rule(r"/(bn\d|downsample_1|\w*norm\d?)/(scale|bias)$", decay=False),
    optim.Rule(""),
)
HEADLINE = tuple(Number(name, percent=True) for name in ("ap", "ap50", "ap75"))
PICTURES = 12  # test images in detections.png


def run(config: ConfigDict, workdir: pathlib.Path, checkpoint: str = "") -> None:
    """Check everything, train, and write the average precision.

    Args:
      config: as `configs/eval/voc_faster_rcnn_c4.py` makes it.
      workdir: the run's folder; a run in it goes on from its newest checkpoint.
      checkpoint: a run of a pre-training, a checkpoint or a file of weights; "" for a
        random network.

    Raises:
      UserError: the config, the data, the backbone or the folder does not fit.
      NonFiniteError: the loss became infinite or not a number.
    """
    plain = config.to_dict()
    schema = voc_faster_rcnn_c4.get_config().to_dict()
    validate.check_keys(plain, schema, base="configs.eval.voc_faster_rcnn_c4")
    check_domains(plain, DETECTION)
    validate.check_devices(config.batch_size, jax.device_count())

    data = config.data
    train, test = (
        open_boxes(data.store, split, data_dir=data.dir or None)
        for split in (data.train_split, data.test_split)
    )
    if train.class_names != test.class_names:
        raise UserError(
            f"The splits {data.train_split} and {data.test_split} have different classes."
        )
    batches = Batches(train, config.batch_size, config.seed, data.sizes, data.max_boxes)
    backbone = open_backbone(config, checkpoint)
    detector = detector_of(config, backbone, len(train.class_names))
    recipe = recipe_of(config, backbone, detector)
    dataset = make_dataset(batches, jax.process_index(), jax.process_count())

    # Where the backbone lies may change, but not what it is.
    path = str(pathlib.Path(checkpoint).absolute()) if checkpoint else ""
    plain["checkpoint_of_backbone"] = path
    plain["fingerprints"] = {
        "backbone": backbone.fingerprint() if checkpoint else "",
        "train": train.fingerprint,
        "test": test.fingerprint,
    }
    distributed.check_equal({"config": plain})
    first = jax.process_index() == 0
    meta = {"config": plain, "classes": train.class_names, "versions": versions()}

    # Of several processes the first one writes.
    with claim_workdir(workdir, plain) if first else contextlib.nullcontext():
        mesh = make_mesh()
        state = first_state(recipe, backbone if checkpoint else None, config, mesh)
        feed = StreamedFeed(
            make_step(recipe, mesh),
            lambda start: stream.iterate(
                dataset, start, config.total_steps, data.prefetch, data.workers
            ),
            mesh,
        )
        evaluate = functools.partial(
            _evaluate,
            _make_finder(detector, test, config.test_batch_size, data.test_size),
            test,
            workdir,
            {
                "protocol": describe(config, train, test),
                "headline": HEADLINE,
                "weights": backbone.identity() if checkpoint else None,
                "images": {f"{x.name} {x.split}": x.fingerprint for x in (train, test)},
            },
        )
        logging.info(
            "Detection on %s: %d images to train on, %d to test on, %d classes, %d steps of "
            "%d.",
            f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            *(len(train), len(test), len(train.class_names)),
            *(config.total_steps, config.batch_size),
        )
        size = RunSize(
            config.total_steps, batches.steps_per_epoch, config.batch_size, len(train)
        )
        shown = [f"detection/{number.name}" for number in HEADLINE]
        evaluations = [Evaluation(evaluate, config.test_every, shown)]
        fit(config, workdir, size, recipe, state, feed, evaluations, mesh, meta)


def describe(config: ConfigDict, train: BoxStore, test: BoxStore) -> str:
    """The protocol in one line."""
    sizes = ", ".join(f"{h}x{w}" for h, w in config.data.sizes)
    return (
        f"Faster R-CNN, all layers trained, {config.total_steps} steps of "
        f"{config.batch_size} images ({config.optimizer.name}, learning "
        f"rate {config.optimizer.learning_rate:g}, seed {config.seed}) on {train.name} "
        f"{train.split} ({len(train)} images within {sizes}), tested on {test.split} "
        f"({len(test)} within {config.data.test_size[0]}x{config.data.test_size[1]})"
    )


def open_backbone(config: ConfigDict, checkpoint: str) -> Backbone:
    """The network and how it wants its images; without a checkpoint it has no variables."""
    own = {
        "dtype": validate.or_user_error(compute_dtype, config.dtype),
        "remat": config.remat,
    }
    if checkpoint:
        loaded = sp_jax.load(checkpoint)
        return dataclasses.replace(loaded, module=loaded.module.clone(**own))
    module = validate.or_user_error(models.get, **config.model.to_dict(), **own)
    colours = Augment(size=64)
    return Backbone(module, {}, colours.size, colours.mean, colours.std)


def detector_of(config: ConfigDict, backbone: Backbone, classes: int) -> Detector:
    """Faster R-CNN around a backbone, with the config's settings."""
    settings = validate.or_user_error(Settings, **config.detector.to_dict())
    colours = backbone.mean, backbone.std
    return validate.or_user_error(
        make_detector, backbone.module, classes, *colours, settings
    )


def recipe_of(config: ConfigDict, backbone: Backbone, detector: Detector) -> Recipe:
    """The detector as a method whose batches come ready, with its optimiser."""
    options = config.optimizer
    peak = options.learning_rate * config.batch_size / 16
    schedule = validate.or_user_error(
        optim.warmup_drops,
        *(peak, options.warmup_steps, options.drops),
        first=1e-3,  # Detectron2 begins at a thousandth.
    )
    tx = optim.by_rules(
        validate.or_user_error(optim.get, options.name),
        RULES,
        schedule,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
    )
    images = np.zeros((1, *config.data.sizes[0], 3), np.uint8)
    method = Method(lambda key, _: detector.init(key, images), detector.loss)
    return Recipe(method, (), backbone.module, tx, schedule)


def first_state(
    recipe: Recipe, backbone: Backbone | None, config: ConfigDict, mesh: Mesh
) -> TrainState:
    """The state of step 0, with the variables of a checkpoint in it if there is one."""
    state = init_state(recipe, config.seed, mesh)
    if backbone is None:
        return state
    try:
        params, stats = load_backbone(
            state.params, state.method_state, backbone.variables
        )
    except ValueError as error:
        raise UserError(f"The checkpoint does not fit: {error}") from error
    state = state.replace(params=params, method_state=stats)
    return jax.device_put(state, by_size(state, mesh))


Finder = Callable[[TrainState], average_precision.Detections]


def _make_finder(
    detector: Detector, test: BoxStore, batch_size: int, size: tuple[int, int]
) -> Finder:
    """Compile the detector for the test images; each process looks at all of them."""
    mesh = make_mesh(jax.local_devices())
    batch_size = -(-batch_size // mesh.size) * mesh.size
    rows, whole = by_batch(mesh), replicated(mesh)
    detect = jax.jit(detector.detect, in_shardings=(whole, whole, rows, rows))

    def find(state: TrainState) -> average_precision.Detections:
        params, stats = jax.device_put(
            local_copy((state.params, state.method_state)), whole
        )
        found = []
        for batch in batches_of(test, batch_size, size):
            boxes, scores, classes = jax.device_get(
                detect(params, stats, batch["image"], batch["size"])
            )
            image, slot = np.nonzero((classes >= 0) & (batch["index"][:, None] >= 0))
            index = batch["index"][image]
            # Back to the pixels of the image as it is stored.
            factor = (test.sizes[index] / batch["size"][image])[:, [1, 0, 1, 0]]
            found.append(
                average_precision.Detections(
                    image=index,
                    boxes=boxes[image, slot] * factor.astype(np.float32),
                    scores=scores[image, slot],
                    classes=classes[image, slot],
                )
            )
        return average_precision.Detections(
            *map(np.concatenate, zip(*found, strict=True))
        )

    return find


def _evaluate(
    find: Finder,
    test: BoxStore,
    workdir: pathlib.Path,
    about: Mapping[str, Any],
    state: TrainState,
    step: int,
) -> dict[str, float]:
    with jax.transfer_guard("allow"):
        found = find(state)
    scores = average_precision.average_precision(test, found)
    by_class = {f"ap50/{name}": ap for name, ap in scores.ap50_by_class.items()}
    result = {**scores.values, **by_class}
    if jax.process_index() == 0:
        write_result(workdir, "detection", result, step=step, **about)
        save_found(workdir / "detections.npz", found, scores)
        # Some test images, evenly spread.
        count = min(PICTURES, len(test))
        rows = np.linspace(0, len(test) - 1, count).astype(int)
        figure = draw_detections(
            [test.read(row) for row in rows],
            [found.of_image(row) for row in rows],
            [(test.boxes[row], test.labels[row]) for row in rows],
            test.class_names,
        )
        save_figure(figure, workdir / "detections.png")
    return {f"detection/{name}": value for name, value in result.items()}


def save_found(
    path: pathlib.Path,
    found: average_precision.Detections,
    scores: average_precision.Scores,
) -> None:
    """All detections (`average_precision.Detections`), and precision at 101 recalls by class.

    The latter are `curves` float64 [C, 101] of the classes `names`, at an IoU of 0.5.
    """
    content = io.BytesIO()
    np.savez_compressed(
        content,
        **found._asdict(),
        names=np.array(list(scores.curves)),
        curves=np.stack(list(scores.curves.values())),
    )
    write_bytes(path, content.getvalue())
