"""Seconds of a linear probe: this project's, scikit-learn's and PyTorch's, in turns.

    python -m benchmarks.probe --features=512                       # random features
    python -m benchmarks.probe --images=50000 --model=resnet50      # random images
    python -m benchmarks.probe --store=tfds:cifar10 --checkpoint=runs/NAME

Random images and features have classes that can be told apart; the time of the SGD fits
depends on their number only, that of the others on what they are. All on the same features:

* `extract`: training and test images through the frozen backbone (not of --features);
* `sweep`: all of `eval.linear_probe` that follows: 2 scalings x 5 learning rates x 5 weight
  decays, 100 epochs each, the choice on a fifth of the training images, the fit on all;
* `lbfgs`: the same for its protocol `lbfgs`, with 5 weight decays;
* `sgd`: one fit of the sweep;
* `scikit-learn`: one LogisticRegression to its default tolerance, on the CPU, at the weight
  decay that `lbfgs` has chosen;
* `torch`: one fit like `sgd` by PyTorch, on the CPU.

The last two have 1, 4 or all threads, whatever is fastest in a trial. One process; all take
turns, round after round, so that another load on the machine hits all alike. Prints a Markdown
row each: seconds of the first call (which compiles), then of the others (median, range), the
ratio of each round to its sweep, and the accuracy on the test images. What is not installed is
left out with a sentence.
"""

import argparse
import functools
import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import spread, table_head, table_row, take_turns
from sp_jax import xla_flags

WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
EPOCHS, BATCH_SIZE = 100, 256
COLUMNS = (
    *("what", "first call, s", "s", "range", "ratio to the sweep", "range"),
    "accuracy",
)


class Data(NamedTuple):
    """Features [n, D] and classes [n] to fit on, and to test on."""

    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    answers: np.ndarray
    classes: int


Turn = Callable[[], float]  # does the work; returns the accuracy


def random_classes(
    count: int, classes: int, shape: tuple[int, ...], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Noise float32 [count, *shape] about a mean of each class, and the classes int32."""
    # Two means are about 3 deviations apart, for any number of features.
    means = np.random.default_rng(0).standard_normal((classes, *shape), np.float32)
    means *= 3 / np.sqrt(2 * np.prod(shape))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    x = rng.standard_normal((count, *shape), np.float32)
    for start in range(0, count, 4096):
        x[start : start + 4096] += means[labels[start : start + 4096]]
    return x, labels


def random_features(count: int, width: int, classes: int) -> Data:
    """Training features, and a fifth as many to test on."""
    train, labels = random_classes(count, classes, (width,), 1)
    test, answers = random_classes(count // 5, classes, (width,), 2)
    return Data(train, labels, test, answers, classes)


def open_backbone(args: argparse.Namespace) -> Any:
    """The checkpoint's backbone, or an untrained one, which is equally fast."""
    import jax

    import sp_jax
    from sp_jax import models
    from sp_jax.backbone import Backbone
    from sp_jax.models.config import compute_dtype

    if args.checkpoint:
        return sp_jax.load(args.checkpoint)
    module = models.get(args.model, dtype=compute_dtype("auto"))
    x = np.zeros((1, 64, 64, 3), np.float32)
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(0), x, False)
    half = (0.5, 0.5, 0.5)
    return Backbone(module, variables, 64, half, half)


def extraction(args: argparse.Namespace) -> Callable[[], Data]:
    """A function that runs all images through the backbone, again at each call."""
    from eval.task import TaskOptions, open_task
    from sp_jax.features import Extractor

    backbone = open_backbone(args)
    if args.store:
        options = TaskOptions(
            dataset=args.store,
            train_split=args.train_split,
            test_split=args.test_split,
            target=args.target,
            image_size=backbone.size,
        )
        task = open_task(options)

        def of_store() -> Data:
            train, test = task.extract(Extractor(backbone))
            labels = task.train_labels, task.test_labels
            return Data(train, labels[0], test, labels[1], task.num_classes)

        return of_store
    parts = []
    for count, seed in ((args.images, 1), (args.images // 5, 2)):
        x, labels = random_classes(count, args.classes, (8, 8, 3), seed)
        pixels = np.clip(127 + 50 * x, 0, 255).astype(np.uint8)
        parts += [pixels.repeat(8, axis=1).repeat(8, axis=2), labels]

    def of_noise() -> Data:
        extractor = Extractor(backbone)
        train, test = extractor.map(parts[0]), extractor.map(parts[2])
        return Data(train, parts[1], test, parts[3], args.classes)

    return of_noise


def own_turns(data: Data) -> tuple[dict[str, Turn], list[float]]:
    """The library's fits; and a list whose last element is the decay that lbfgs chose."""
    from eval.probe_lbfgs import fit_lbfgs
    from eval.probes import SCALINGS, fit_chosen, fit_probes, hold_out, score

    held_out = hold_out(np.arange(len(data.train)), 0.2, 0)
    fit = {"num_classes": data.classes, "epochs": EPOCHS, "batch_size": BATCH_SIZE}
    decays: list[float] = []

    def tested(probes: Any) -> float:
        return float(score(probes, data.test, data.answers)[0][0])

    def one() -> float:
        return tested(fit_probes(data.train, data.labels, [0.03], [1e-3], **fit))

    def sweep() -> float:
        grid = LEARNING_RATES, WEIGHT_DECAYS, SCALINGS
        probe, _ = fit_chosen(data.train, data.labels, held_out, *grid, **fit)
        return tested(probe)

    def lbfgs() -> float:
        part = data.train[~held_out], data.labels[~held_out]
        probes, _ = fit_lbfgs(*part, WEIGHT_DECAYS, num_classes=data.classes)
        accuracy, loss = score(probes, data.train[held_out], data.labels[held_out])
        decays.append(WEIGHT_DECAYS[np.lexsort((loss, -accuracy))[0]])
        probe, _ = fit_lbfgs(
            data.train, data.labels, decays[-1:], num_classes=data.classes
        )
        return tested(probe)

    turns = {
        "sweep": sweep,
        "lbfgs": lbfgs,
        "sgd": one,
    }
    return turns, decays


def fastest(run: Callable[[int], None]) -> int:
    """The number of threads with which a short run is fastest: 1, 4 or all.

    On a machine with other work all of them can be far slower than one.
    """
    cores = os.cpu_count() or 1
    seconds = {}
    for threads in sorted({1, min(4, cores), cores}):
        start = time.perf_counter()
        run(threads)
        seconds[threads] = time.perf_counter() - start
    return min(seconds, key=seconds.__getitem__)


def scikit_learn(data: Data, decays: list[float]) -> Turn:
    """One fit of LogisticRegression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    def fit(threads: int, decay: float, iterations: int) -> float:
        strength = 1 / (len(data.train) * decay)
        logistic = LogisticRegression(C=strength, max_iter=iterations)
        pipeline = make_pipeline(StandardScaler(), logistic)
        with threadpool_limits(threads), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a trial has not converged
            pipeline.fit(data.train, data.labels)
            return float(pipeline.score(data.test, data.answers))

    threads = fastest(lambda threads: fit(threads, 1e-2, 5))
    return lambda: fit(threads, decays[-1], 1000)


def torch_sgd(data: Data) -> Turn:
    """One fit like the library's, its learning rate and weight decay in the middle."""
    import torch

    def turn(epochs: int = EPOCHS) -> float:
        mean, scale = data.train.mean(0), data.train.std(0) + 1e-6
        x, test = (
            torch.from_numpy((part - mean) / scale) for part in (data.train, data.test)
        )
        labels = torch.from_numpy(data.labels).long()
        torch.manual_seed(0)
        layer = torch.nn.Linear(x.shape[1], data.classes)
        size = min(BATCH_SIZE, len(x))
        steps = len(x) // size
        sgd = torch.optim.SGD(
            layer.parameters(), 0.03, momentum=0.9, nesterov=True, weight_decay=1e-3
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, epochs * steps)
        for _ in range(epochs):
            order = torch.randperm(len(x))[: steps * size].reshape(steps, size)
            for rows in order:
                loss = torch.nn.functional.cross_entropy(layer(x[rows]), labels[rows])
                sgd.zero_grad()
                loss.backward()
                sgd.step()
                schedule.step()
        with torch.no_grad():
            return float(np.mean(layer(test).argmax(1).numpy() == data.answers))

    def trial(threads: int) -> None:
        torch.set_num_threads(threads)
        turn(epochs=2)

    torch.set_num_threads(fastest(trial))
    return turn


def timed(turn: Turn) -> tuple[float, float]:
    """Seconds of a call, and its accuracy."""
    start = time.perf_counter()
    accuracy = turn()
    return time.perf_counter() - start, accuracy


def digits(value: float) -> str:
    """Three significant digits."""
    return np.format_float_positional(value, 3, fractional=False, trim="-")


def markdown(
    name: str, seconds: list[float], sweep: list[float], accuracy: float
) -> str:
    """A row; the first of the seconds is that of the first call."""
    ratios = [one / other for one, other in zip(seconds[1:], sweep[1:], strict=True)]
    cells = [name, digits(seconds[0])]
    cells += [*spread(seconds[1:], digits), *spread(ratios, digits)]
    return table_row((*cells, "" if np.isnan(accuracy) else f"{accuracy:.4f}"))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", help="an image store; otherwise random images")
    parser.add_argument("--train_split", default="train")
    parser.add_argument("--test_split", default="test")
    parser.add_argument("--target", default="label")
    parser.add_argument("--checkpoint", help="a run; otherwise an untrained network")
    parser.add_argument("--model", default="resnet18", help="the untrained network")
    parser.add_argument(
        "--images", type=int, default=5000, help="number of random images, of 64 px"
    )
    parser.add_argument(
        "--features", type=int, help="use random features instead, of this width"
    )
    parser.add_argument(
        "--classes", type=int, default=10, help="classes of random images or features"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--own", action="store_true", help="leave the other libraries out"
    )
    args = parser.parse_args(argv)
    if args.images < 50 or args.classes < 2 or args.rounds < 1:
        parser.error("give at least 50 images, 2 classes and 1 round.")
    if args.features and (args.store or args.checkpoint):
        parser.error("random --features need no --store and no --checkpoint.")
    return args


def main(argv: list[str]) -> None:
    args = parse(argv)
    xla_flags.set_cpu_flags()
    import jax

    turns: dict[str, Turn] = {}
    if args.features:
        data = random_features(args.images, args.features, args.classes)
    else:
        extract = extraction(args)

        def extract_all() -> float:
            extract()
            return float("nan")

        turns["extract"], data = extract_all, extract()
    own, decays = own_turns(data)
    turns |= own
    for name, module, make in (
        ("scikit-learn", "sklearn", lambda: scikit_learn(data, decays)),
        ("torch", "torch", lambda: torch_sgd(data)),
    ):
        if args.own:
            continue
        if importlib.util.find_spec(module):
            turns[name] = make()
        else:
            print(f"{name} is left out: pip install -r requirements-test.txt has it.")
    device = jax.devices()[0].device_kind
    print(
        f"{device}; features {data.train.shape[0]:,} x {data.train.shape[1]:,} to fit on, "
        f"{len(data.test):,} to test on, {data.classes} classes; {args.rounds} rounds\n"
    )
    calls = {name: functools.partial(timed, turn) for name, turn in turns.items()}
    found = take_turns(calls, 1 + args.rounds)  # the first one is no round
    seconds = {name: [s for s, _ in results] for name, results in found.items()}
    print(table_head(COLUMNS))
    for name, results in found.items():
        print(markdown(name, seconds[name], seconds["sweep"], results[-1][1]))


if __name__ == "__main__":
    main(sys.argv[1:])
