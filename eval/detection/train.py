"""Train a detector: a run like a pre-training, in the same loop."""

import contextlib
import dataclasses
import io
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import sp_jax
from configs.eval import voc_faster_rcnn_c4
from eval.detection import data
from eval.detection.average_precision import Detections, average_precision
from eval.detection.draw_boxes import draw_detections
from eval.detection.network import Detector, Settings, make_detector
from eval.evaluator import Number
from eval.plots.figure import save_figure
from eval.results import write_result
from eval.supervised import trainable
from input_pipeline.pairs import stream
from sp_jax import distributed, extras, models, optim, progress, sharding, validate
from sp_jax.augment import Augment
from sp_jax.backbone import Backbone
from sp_jax.domains import DETECTION, check_domains
from sp_jax.errors import UserError
from sp_jax.files import write_bytes
from sp_jax.methods import Method, RunSize
from sp_jax.models.config import compute_dtype
from sp_jax.recipe import Recipe
from sp_jax.train import loggers
from sp_jax.train.evaluation import Evaluation
from sp_jax.train.feed import StreamedFeed
from sp_jax.train.loop import fit
from sp_jax.train.step import TrainState, init_state, make_step
from sp_jax.train.trace import check_profile
from sp_jax.train.workdir import claim_workdir
from sp_jax.versions import versions

RULES = (
    optim.Rule(r"/(bn\d|downsample_1|\w*norm\d?)/(scale|bias)$", decay=False),
    optim.Rule(""),
)
HEADLINE = tuple(Number(name, percent=True) for name in ("ap", "ap50", "ap75"))
PICTURES = 12  # test images in detections.png


def run(config: ConfigDict, workdir: pathlib.Path, checkpoint: str = "") -> None:
    """Check everything, train, and write the average precision.

    The config is as `configs/eval/voc_faster_rcnn_c4.py` makes it. A run in the folder goes on
    from its newest checkpoint. `checkpoint` is that of a pre-training (or its run, or a file of
    weights); "" is a random network.

    Raises:
      UserError: the config, the data, the backbone or the folder does not fit.
      NonFiniteError: the loss became infinite or not a number.
    """
    plain, own = config.to_dict(), config.data
    train, test = open_images(config, jax.device_count())
    batches = data.Batches(
        train, config.batch_size, config.seed, own.sizes, own.max_boxes
    )
    backbone = open_backbone(config, checkpoint)
    detector, recipe = make_recipe(config, backbone, len(train.class_names))
    dataset = data.make_dataset(batches, jax.process_index(), jax.process_count())

    # Where the backbone lies may change, but not what it is.
    path = str(pathlib.Path(checkpoint).absolute()) if checkpoint else ""
    plain["checkpoint_of_backbone"] = path
    plain["fingerprints"] = {
        "backbone": backbone.fingerprint() if checkpoint else "",
        "train": train.fingerprint,
        "test": test.fingerprint,
    }
    distributed.check_equal({"config": plain})
    meta = {"config": plain, "classes": train.class_names, "versions": versions()}

    # Of several processes the first one writes.
    first = jax.process_index() == 0
    with claim_workdir(workdir, plain) if first else contextlib.nullcontext():
        mesh = sharding.make_mesh()
        with progress.show("making the network"):
            state = init_state(recipe, config.seed, mesh, backbone.network())
        feed = StreamedFeed(
            make_step(recipe, mesh),
            lambda start: stream.iterate(
                dataset, start, config.total_steps, own.prefetch, own.workers
            ),
            mesh,
        )
        about = {
            "evaluator": "detection",
            "options": plain,
            "protocol": _describe(config, train, test),
            "headline": HEADLINE,
            "weights": backbone.identity() if checkpoint else None,
            "images": {f"{x.name} {x.split}": x.fingerprint for x in (train, test)},
        }
        evaluate = _make_evaluate(detector, test, config, workdir, about)
        shown = [f"detection/{number.name}" for number in HEADLINE]
        evaluations = [Evaluation(evaluate, config.test_every, shown)]
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
        fit(config, workdir, size, recipe, state, feed, evaluations, mesh, meta)


def open_images(
    config: ConfigDict, devices: int
) -> tuple[data.BoxStore, data.BoxStore]:
    """Check a config, and open the images to train and to test on.

    Raises:
      UserError: a key, a number, a store or a split is wrong, or pycocotools is missing.
    """
    extras.require("detection", "Detection")
    plain, own = config.to_dict(), config.data
    schema = voc_faster_rcnn_c4.get_config().to_dict()
    validate.check_keys(plain, schema, base="configs.eval.voc_faster_rcnn_c4")
    check_domains(plain, DETECTION)
    loggers.check(plain["loggers"])
    validate.check_devices(config.batch_size, devices)
    check_profile(config.profile, config.total_steps)

    train, test = (
        data.open_boxes(own.store, split, data_dir=own.dir or None)
        for split in (own.train_split, own.test_split)
    )
    if train.class_names != test.class_names:
        raise UserError(
            f"The splits {own.train_split} and {own.test_split} have different classes."
        )
    return train, test


def _describe(config: ConfigDict, train: data.BoxStore, test: data.BoxStore) -> str:
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
    """The network, and how it expects images; without a checkpoint it has no variables."""
    dtype = validate.or_user_error(compute_dtype, config.dtype)
    own = {"dtype": dtype, "remat": config.remat}
    if checkpoint:
        loaded = sp_jax.load(checkpoint)
        module = trainable(loaded.module).clone(**own)
        return dataclasses.replace(loaded, module=module)
    module = validate.or_user_error(models.get, **config.model.to_dict(), **own)
    colours = Augment(size=64)
    return Backbone(module, {}, colours.size, colours.mean, colours.std)


def make_recipe(
    config: ConfigDict, backbone: Backbone, classes: int
) -> tuple[Detector, Recipe]:
    """Faster R-CNN around a backbone, and its training; UserError if a value does not fit."""
    options, checked = config.optimizer, validate.or_user_error
    settings = checked(Settings, **config.detector.to_dict())
    colours = backbone.mean, backbone.std
    detector = checked(make_detector, backbone.module, classes, *colours, settings)
    peak = options.learning_rate * config.batch_size / 16
    warmup = options.warmup_steps
    # Detectron2 begins at a thousandth.
    schedule = checked(optim.warmup_drops, peak, warmup, options.drops, first=1e-3)
    tx = optim.by_rules(
        checked(optim.get, options.name),
        RULES,
        schedule,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
    )
    images = np.zeros((1, *config.data.sizes[0], 3), np.uint8)
    method = Method(lambda key, _: detector.init(key, images), detector.loss)
    return detector, Recipe(method, (), backbone.module, tx, schedule)


def _make_evaluate(
    detector: Detector,
    test: data.BoxStore,
    config: ConfigDict,
    workdir: pathlib.Path,
    about: Mapping[str, Any],
) -> Callable[[TrainState, int], dict[str, float]]:
    """A function that detects, measures and draws; each process reads all test images."""
    mesh = sharding.make_mesh(jax.local_devices())
    batch_size = -(-config.test_batch_size // mesh.size) * mesh.size
    rows, whole = sharding.by_batch(mesh), sharding.replicated(mesh)
    detect = jax.jit(detector.detect, in_shardings=(whole, whole, rows, rows))

    def find(state: TrainState) -> Detections:
        variables = sharding.local_copy((state.params, state.method_state))
        params, stats = jax.device_put(variables, whole)
        found = []
        batches = data.test_batches(test, batch_size, config.data.test_size)
        count = -(-len(test) // batch_size)
        for batch in progress.track(batches, "detecting", "batches", count):
            boxes, scores, classes = jax.device_get(
                detect(params, stats, batch["image"], batch["size"])
            )
            there = (classes >= 0) & (batch["index"][:, None] >= 0)
            image, _ = np.nonzero(there)
            index = batch["index"][image]
            # Back to the pixels of the image as it is stored.
            factor = (test.sizes[index] / batch["size"][image])[:, [1, 0, 1, 0]]
            boxes = boxes[there] * factor.astype(np.float32)
            found.append((index, boxes, scores[there], classes[there]))
        return Detections(*map(np.concatenate, zip(*found, strict=True)))

    def evaluate(state: TrainState, step: int) -> dict[str, float]:
        with jax.transfer_guard("allow"):
            found = find(state)
        with progress.show("average precision"):
            scores = average_precision(test, found)
        by_class = {f"ap50/{name}": ap for name, ap in scores.ap50_by_class.items()}
        result = scores.values | by_class
        if jax.process_index() == 0:
            write_result(
                workdir, "detection", result, step=step, training=True, **about
            )
            # All that was found, and precision at 101 recalls by class, at an IoU of 0.5.
            content, names = io.BytesIO(), list(scores.curves)
            curves = list(scores.curves.values())
            np.savez_compressed(content, **found._asdict(), names=names, curves=curves)
            write_bytes(workdir / "detections.npz", content.getvalue())
            # Some test images, evenly spread.
            chosen = np.linspace(0, len(test) - 1, min(PICTURES, len(test))).astype(int)
            figure = draw_detections(
                [test.read(row) for row in chosen],
                [found.of_image(row) for row in chosen],
                [(test.boxes[row], test.labels[row]) for row in chosen],
                test.class_names,
            )
            save_figure(figure, workdir / "detections.png")
        return {f"detection/{name}": value for name, value in result.items()}

    return evaluate
