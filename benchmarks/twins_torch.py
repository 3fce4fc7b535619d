"""One training of `benchmarks.twins` in PyTorch, with lightly's transforms, heads and losses.

    python -m benchmarks.twins_torch --config=benchmarks/twins_recipes.py:byol \
        --config.data.store=folder:CIFAR10 --config.evals.knn.dataset=folder:CIFAR10

Takes the same flags as the trainer, and writes the same kind of record: `metrics.jsonl` with
the mean loss of each `log_every` steps, and the kNN accuracy of the exported backbone.
"""

import dataclasses
import json
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# First: it can load a torchvision of another build, which lightly needs, too.
from tests.torchvision_ref import torch

# isort: split
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from lightly.models.modules.heads import (
    DINOProjectionHead,
    ProjectionHead,
    SimCLRProjectionHead,
)
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule

from benchmarks import peers
from benchmarks.peers_torch import PairData, Views, make_backbone, make_optimizer
from benchmarks.peers_work import Work
from sp_jax import program

nn = torch.nn


@dataclasses.dataclass(frozen=True)
class Length:
    """Steps of the whole run, and of an epoch."""

    steps: int
    per_epoch: int


class Method(nn.Module):
    """A network in training; `evaluated` is the backbone that is evaluated.

    Called with a batch of two views it gives the loss.
    """

    evaluated: nn.Module

    def before_step(self, step: int) -> None:
        """Called between the backward pass and the optimiser."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser."""


class SimCLR(Method):
    """Both views in one forward."""

    def __init__(self, work: Work, length: Length):
        super().__init__()
        o = work.options
        self.evaluated, width = make_backbone(work.model)
        self.head = SimCLRProjectionHead(
            width, width, o["projection_dim"], o["projection_layers"]
        )
        for layer in self.head.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
        self.head.layers[-1].register_parameter("bias", None)
        self.loss = NTXentLoss(o["temperature"])

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        return self.loss(*self.head(self.evaluated(torch.cat([x1, x2]))).chunk(2))


class VICReg(Method):
    """A forward for each view."""

    def __init__(self, work: Work, length: Length):
        super().__init__()
        o = work.options
        self.evaluated, width = make_backbone(work.model)
        self.head = mlp(width, *[o["projection_dim"]] * o["projection_layers"])
        self.loss = VICRegLoss(o["invariance"], o["variance"], o["covariance"])

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        return self.loss(*(self.head(self.evaluated(x)) for x in (x1, x2)))


class BYOL(Method):
    """The target starts from other random numbers than the online network."""

    def __init__(self, work: Work, length: Length):
        super().__init__()
        self.options, self.length = work.options, length
        hidden, dim = self.options["hidden_dim"], self.options["projection_dim"]

        def make() -> nn.Sequential:
            backbone, width = make_backbone(work.model)
            norm = nn.BatchNorm1d(dim, affine=False)
            last = norm if self.options["projection_norm"] else None
            return nn.Sequential(backbone, mlp(width, hidden, dim, last_norm=last))

        self.online, self.target = make(), make().requires_grad_(False)
        self.predictor = mlp(dim, hidden, dim)
        self.loss = NegativeCosineSimilarity()

    @property
    def evaluated(self) -> nn.Module:
        """The online backbone."""
        return self.online[0]

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """The loss of a batch; lightly's is a quarter of the official one, less 1."""
        p1, p2 = (self.predictor(self.online(x)) for x in (x1, x2))
        with torch.no_grad():
            t1, t2 = (self.target(x) for x in (x1, x2))
        return 4 + 2 * (self.loss(p1, t2) + self.loss(p2, t1))

    def after_step(self, step: int) -> None:
        """Move the target."""
        start, steps = self.options["momentum"], self.length.steps
        momentum = cosine_schedule(step, steps + 1, start, 1.0)
        update_momentum(self.online, self.target, momentum)


class DINO(Method):
    """Two global views, both in one forward; the teacher's backbone counts."""

    def __init__(self, work: Work, length: Length):
        super().__init__()
        o = self.options = work.options
        self.length = length

        def make() -> nn.Sequential:
            backbone, width = make_backbone(work.model)
            widths = o["hidden_dim"], o["bottleneck_dim"], o["out_dim"]
            with warnings.catch_warnings():  # lightly has the older weight_norm
                warnings.simplefilter("ignore", FutureWarning)
                head = DINOProjectionHead(
                    width, *widths, o["head_norm"], 1, o["norm_last_layer"]
                )
            return nn.Sequential(backbone, head)

        self.student, self.teacher = make(), make().requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.loss = DINOLoss(
            o["out_dim"],
            teacher_temp=o["teacher_temperature"],
            student_temp=o["student_temperature"],
            center_momentum=o["center_momentum"],
        )

    @property
    def evaluated(self) -> nn.Module:
        """The teacher's backbone."""
        return self.teacher[0]

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        x = torch.cat([x1, x2])
        with torch.no_grad():
            targets = self.teacher(x).chunk(2)
        return self.loss(targets, self.student(x).chunk(2))

    def before_step(self, step: int) -> None:
        """Leave the last layer alone in the first epoch."""
        self.student[1].cancel_last_layer_gradients(step // self.length.per_epoch)

    def after_step(self, step: int) -> None:
        """Move the teacher."""
        start, steps = self.options["momentum"], self.length.steps
        momentum = cosine_schedule(step, steps + 1, start, 1.0)
        update_momentum(self.student, self.teacher, momentum)


def mlp(*widths: int, last_norm: nn.Module | None = None) -> ProjectionHead:
    """lightly's head with the biases of `sp_jax.models.MLP`: all but the last layer's."""
    hidden = [
        (before, after, nn.BatchNorm1d(after), nn.ReLU(), True)
        for before, after in zip(widths[:-2], widths[1:-1], strict=True)
    ]
    return ProjectionHead([*hidden, (*widths[-2:], last_norm, None, False)])


def make_method(work: Work, length: Length) -> Method:
    """The network of a method, at random."""
    kinds = dict(simclr=SimCLR, vicreg=VICReg, byol=BYOL, dino=DINO)
    return kinds[work.method](work, length)


def make_step(
    method: Method, work: Work, length: Length
) -> Callable[[Views, int], float]:
    """The function that trains on two views in a step, and returns the loss."""
    optimizer = make_optimizer(method, work.optimizer, lightly=True)
    recipe = {"final_factor": 0.0, "clip": 0.0} | work.optimizer
    warmup = round(recipe["warmup_epochs"] * length.per_epoch)
    decay = recipe["weight_decay"]
    last_decay = recipe.get("final_weight_decay", decay)

    def train(views: Views, step: int) -> float:
        rate = recipe["learning_rate"]
        if step < warmup:
            rate *= step / warmup
        else:
            rest, last = length.steps - warmup, recipe["final_factor"] * rate
            rate = cosine_schedule(step - warmup, rest + 1, rate, last)
        for group in optimizer.param_groups:
            group["lr"] = rate
        kernels, _ = optimizer.param_groups
        kernels["weight_decay"] = cosine_schedule(
            step, length.steps + 1, decay, last_decay
        )
        optimizer.zero_grad()
        loss = method(*views)
        loss.backward()
        if recipe["clip"]:
            for p in method.parameters():
                torch.nn.utils.clip_grad_norm_([p], recipe["clip"])
        method.before_step(step)
        optimizer.step()
        method.after_step(step)
        return loss.item()

    return train


def batches(work: Work) -> Iterator[Views]:
    """Batches of views, epoch after epoch in another order."""
    loader = torch.utils.data.DataLoader(
        PairData(work), work.batch_size, shuffle=True, drop_last=True
    )
    while True:
        yield from loader


def train(config: Any, out: pathlib.Path) -> None:
    """Train with a config, and write the record into the folder."""
    import eval as evaluators
    from eval.task import images_as
    from eval.training import open_training
    from sp_jax import weights
    from sp_jax.features import Extractor

    out.mkdir(parents=True, exist_ok=True)
    pairs, size, *_ = open_training(config, out, devices=1)
    length = Length(size.total_steps, size.steps_per_epoch)
    rows = np.arange(len(pairs.shown))
    work = peers.make_work(config, pairs.shown)
    work = dataclasses.replace(work, pairs=np.stack([rows, rows], axis=1))
    options = images_as(config.data) | config.evals.knn.to_dict()
    kind, every = options.pop("type"), options.pop("every_epochs")
    evaluate = evaluators.make(kind, options)

    torch.manual_seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002 lightly draws from it
    method = make_method(work, length)
    step, data, losses = make_step(method, work, length), batches(work), []
    started = time.perf_counter()
    with open(out / "metrics.jsonl", "w") as file:
        for number in range(length.steps + 1):
            line: dict[str, float] = {}
            if number % (every * length.per_epoch) == 0 or number == length.steps:
                torch.save(method.evaluated.state_dict(), out / "backbone.pth")
                backbone = weights.load(out / "backbone.pth", size=config.image_size)
                before = time.perf_counter()
                result = evaluate(Extractor(backbone), number)
                line = {f"knn/{name}": value for name, value in result.items()}
                started += time.perf_counter() - before
            if losses and (number % config.log_every == 0 or number == length.steps):
                now = time.perf_counter()
                line["loss"] = float(np.mean(losses))
                line["step_ms"] = 1e3 * (now - started) / len(losses)
                losses, started = [], now
            if line:
                file.write(
                    json.dumps({"step": number, "time": time.time(), **line}) + "\n"
                )
                file.flush()
            if number < length.steps:
                losses.append(step(next(data), number))
                if not math.isfinite(losses[-1]):
                    sys.exit(f"error: the loss of step {number} is {losses[-1]}.")


if __name__ == "__main__":
    program.main(train, "benchmarks/twins_recipes.py:byol")
