"""The training step of `benchmarks.peers` in PyTorch. No jax: the loader's workers import it.

It is written twice: as a user of lightly writes it, with its heads, losses and LARS; and
"plain", as fast as PyTorch can be: losses that never wait for the device, LARS over all
parameters at once, and on a GPU the whole step as one CUDA graph.
"""

import contextlib
import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.torchvision_ref import torch, torchvision

nn, functional = torch.nn, torch.nn.functional

Views = list[torch.Tensor]  # two, float32 [B, 3, S, S]
BYOL_MOMENTUM = 0.99  # the schedule costs nothing
PREFETCH = 2  # batches a worker makes ahead; the loader's default


@dataclasses.dataclass(frozen=True)
class Work:
    """What is trained on what, in plain numbers and arrays.

    Attributes:
        method: simclr, vicreg or byol.
        model: arguments of `sp_jax.models.get`.
        options: all keyword arguments of the method's `create`.
        optimizer: name (adamw or a LARS), learning_rate (for this batch), weight_decay
            and momentum.
        views: the fields of `sp_jax.augment.Augment` for each of the two views, and
            "kernel_size".
        batch_size: pairs a step.
        images: uint8 [N, S, S, 3].
        pairs: rows of the images, int32 [P, 2].
    """

    method: str
    model: dict[str, Any]
    options: dict[str, Any]
    optimizer: dict[str, Any]
    views: list[dict[str, Any]]
    batch_size: int
    images: np.ndarray
    pairs: np.ndarray


@dataclasses.dataclass(frozen=True)
class Settings:
    """How it runs.

    Attributes:
        device: where.
        steps: of a turn.
        compile_it: whether to try `torch.compile` and CUDA graphs.
        workers: processes that make lightly's views, at least 1.
    """

    device: torch.device
    steps: int
    compile_it: bool
    workers: int


# Networks and losses


def make_backbone(work: Work) -> tuple[nn.Module, int]:
    """torchvision's ResNet or timm's ViT without its classifier; the features' width."""
    name = work.model["name"]
    if name.startswith("vit"):
        from timm.models import VisionTransformer

        sizes = {name: work.model[name] for name in ("patch_size", "depth")}
        heads = {"vit_tiny": 3, "vit_small": 6}[name]
        network = VisionTransformer(
            work.model["image_size"],
            embed_dim=64 * heads,
            num_heads=heads,
            num_classes=0,
            **sizes,
        )
        return network, network.num_features
    network = getattr(torchvision.models, name)(zero_init_residual=True)
    width = network.fc.in_features
    network.fc = nn.Identity()
    if work.model["stem"] == "small":
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network, width


def mlp(*widths: int, hidden_bias: bool = True) -> nn.Sequential:
    """Linear, BN and ReLU for each hidden width; a last Linear without a bias."""
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-2], widths[1:-1], strict=True):
        layers += [
            nn.Linear(before, after, bias=hidden_bias),
            nn.BatchNorm1d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:], bias=False))


def nt_xent(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
    """As `sp_jax.losses.nt_xent`."""
    u = functional.normalize(torch.cat([z1, z2]))
    rows = torch.arange(len(u), device=u.device)
    own = rows[:, None] == rows
    logits = (u @ u.T / temperature).masked_fill(own, -torch.inf)
    return functional.cross_entropy(logits, rows.roll(len(z1)))


def vicreg(z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    """As `sp_jax.losses.vicreg`, with its weights of 25, 25 and 1."""
    n, d = z1.shape
    loss = 25 * functional.mse_loss(z1, z2)
    for z in (z1, z2):
        z = z - z.mean(0)
        cov = z.T @ z / (n - 1)
        var = cov.diagonal()
        loss = loss + 25 * functional.relu(1 - torch.sqrt(var + 1e-4)).mean() / 2
        loss = loss + (cov.square().sum() - var.square().sum()) / d
    return loss


def cosine_distance(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """As `sp_jax.losses.byol`."""
    return 2 - 2 * functional.cosine_similarity(p, t).mean()


class Siamese(nn.Module):
    """SimCLR (both views in one forward) or VICReg (a forward for each)."""

    def __init__(self, backbone, head, loss, joint: bool):
        super().__init__()
        self.backbone, self.head, self.loss = backbone, head, loss
        self.joint = joint

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        with autocast(x1):
            if self.joint:
                z1, z2 = self.head(self.backbone(torch.cat([x1, x2]))).chunk(2)
            else:
                z1, z2 = (self.head(self.backbone(x)) for x in (x1, x2))
        return self.loss(z1.float(), z2.float())

    def update(self) -> None:
        """Nothing follows the parameters."""


class Byol(nn.Module):
    """BYOL; `distance` is of predictions and targets."""

    def __init__(self, backbone, head, predictor, distance):
        super().__init__()
        self.online = nn.Sequential(backbone, head)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.predictor, self.distance = predictor, distance

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        with autocast(x1):
            p1, p2 = (self.predictor(self.online(x)) for x in (x1, x2))
            with torch.no_grad():
                t1, t2 = (self.target(x) for x in (x1, x2))
        p1, p2, t1, t2 = (x.float() for x in (p1, p2, t1, t2))
        return self.distance(p1, t2) + self.distance(p2, t1)

    @torch.no_grad()
    def update(self) -> None:
        """Move the target towards the online network."""
        online, target = (list(x.parameters()) for x in (self.online, self.target))
        torch._foreach_lerp_(target, online, 1 - BYOL_MOMENTUM)


def autocast(x: torch.Tensor) -> torch.autocast:
    """bfloat16 activations on a GPU, float32 on a CPU: as sp_jax."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda)


def make_method(work: Work, lightly: bool) -> nn.Module:
    """Network and loss; with lightly's heads and losses, or with those above.

    lightly's heads differ from ours by some biases beside a batch normalisation.
    """
    backbone, width = make_backbone(work)
    o = work.options
    if lightly:
        from lightly import loss as losses
        from lightly.models.modules import heads
    if work.method == "byol":
        dims = o["hidden_dim"], o["projection_dim"]
        if lightly:
            cosine = losses.NegativeCosineSimilarity()
            head = heads.BYOLProjectionHead(width, *dims)
            predictor = heads.BYOLPredictionHead(dims[1], *dims)
            return Byol(backbone, head, predictor, cosine)
        head, predictor = mlp(width, *dims), mlp(dims[1], *dims)
        return Byol(backbone, head, predictor, cosine_distance)
    dim, layers = o["projection_dim"], o["projection_layers"]
    if work.method == "vicreg":
        if lightly:
            head = heads.VICRegProjectionHead(width, dim, dim, layers)
            return Siamese(backbone, head, losses.VICRegLoss(), joint=False)
        head = mlp(width, *[dim] * layers)
        return Siamese(backbone, head, vicreg, joint=False)
    if lightly:
        head = heads.SimCLRProjectionHead(width, width, dim, layers)
        return Siamese(backbone, head, losses.NTXentLoss(o["temperature"]), joint=True)
    norm = nn.BatchNorm1d(dim)
    norm.register_parameter("bias", None)
    head = nn.Sequential(mlp(*[width] * layers, dim, hidden_bias=False), norm)
    loss = functools.partial(nt_xent, temperature=o["temperature"])
    return Siamese(backbone, head, loss, joint=True)


# The step


class Lars(torch.optim.Optimizer):
    """`sp_jax.optim`'s "lars", all parameters at once and without waiting for the device."""

    def __init__(self, groups, lr: float, momentum: float):
        super().__init__(groups, {"lr": lr, "momentum": momentum})
        for group in self.param_groups:
            group["buffers"] = [torch.zeros_like(p) for p in group["params"]]

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters."""
        for group in self.param_groups:
            params, decay = group["params"], group["weight_decay"]
            updates = [p.grad for p in params]
            if decay:
                updates = torch._foreach_add(updates, params, alpha=decay)
                w, g = (torch.stack(torch._foreach_norm(x)) for x in (params, updates))
                ratio = torch.where((w > 0) & (g > 0), 0.001 * w / g, 1.0)
                torch._foreach_mul_(updates, ratio.unbind())
            torch._foreach_mul_(group["buffers"], group["momentum"])
            torch._foreach_add_(group["buffers"], updates)
            torch._foreach_add_(params, group["buffers"], alpha=-group["lr"])


def make_optimizer(
    method: nn.Module, recipe: dict[str, Any], lightly: bool
) -> torch.optim.Optimizer:
    """The kind of optimiser of the recipe; only matrices decay and are adapted."""
    params = [p for p in method.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in params if p.ndim > 1],
            "weight_decay": recipe["weight_decay"],
        },
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    name, rate = recipe["name"], recipe["learning_rate"]
    if name == "adamw":
        on_gpu = params[0].is_cuda
        return torch.optim.AdamW(groups, rate, fused=on_gpu, capturable=on_gpu)
    if lightly:
        from lightly.utils.lars import LARS

        return LARS(groups, rate, recipe["momentum"])
    return Lars(groups, rate, recipe["momentum"])


Step = Callable[[Views], torch.Tensor]


def make_step(work: Work, settings: Settings, views: Views, lightly: bool) -> Step:
    """Make a network, and the function that trains it on two views.

    Args:
        work: what to train.
        settings: `compile_it`: use `torch.compile`, and on a GPU a CUDA graph for what
            never waits for it. What does not work is left out, with a sentence.
        views: an example.
        lightly: with lightly's heads, loss and LARS.

    Returns:
        `step(views) -> loss`, which may return before the device is done.
    """
    device = settings.device
    method = make_method(work, lightly).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(method, work.optimizer, lightly)

    def step_with(loss_of: Callable[..., torch.Tensor]) -> Step:
        def step(views: Views) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(*views)
            loss.backward()
            optimizer.step()
            method.update()
            return loss.detach()

        return step

    def compiled() -> Step:
        step = step_with(torch.compile(method, dynamic=False))
        step(views)
        return step

    step = step_with(method)
    if settings.compile_it:
        step = attempt("torch.compile", compiled) or step
    if settings.compile_it and device.type == "cuda" and not lightly:
        step = attempt("A CUDA graph", lambda: record(step, views)) or step
    return step


def attempt(what: str, make: Callable[[], Step]) -> Step | None:
    """What is made, or None and a sentence."""
    try:
        return make()
    except Exception as error:  # compilers raise many kinds
        reason = str(error).strip().partition("\n")[0]
        print(f"{what} does not work here and is left out: {reason}")
        return None


def record(step: Step, views: Views) -> Step:
    """Record a step, so that a call launches all of its kernels at once."""
    static = [x.clone() for x in views]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm up where nothing is recorded
        for _ in range(3):
            step(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        loss = step(static)

    def replay(views: Views) -> torch.Tensor:
        for old, new in zip(static, views, strict=True):
            old.copy_(new)
        graph.replay()
        return loss

    return replay


# Views


class PairData(torch.utils.data.Dataset):
    """Two views of a pair by lightly's transforms of PIL images, one pair at a time."""

    def __init__(self, work: Work):
        from lightly import transforms
        from lightly.transforms.simclr_transform import SimCLRViewTransform

        if work.method == "simclr":
            makers = SimCLRViewTransform, SimCLRViewTransform
        else:  # sp_jax has the views of BYOL for VICReg, too
            makers = transforms.BYOLView1Transform, transforms.BYOLView2Transform
        self.transforms = [
            make(input_size=view["size"])
            for make, view in zip(makers, work.views, strict=True)
        ]
        self.images = torch.from_numpy(work.images).share_memory_()
        self.pairs = work.pairs

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.pairs)

    def __getitem__(self, i: int) -> Views:
        """The views of pair i; a coin decides which image gets which transform."""
        rows = self.pairs[i][:: 1 if torch.rand(()) < 0.5 else -1]
        pictures = [Image.fromarray(self.images[row].numpy()) for row in rows]
        both = zip(self.transforms, pictures, strict=True)
        return [transform(picture) for transform, picture in both]


@dataclasses.dataclass
class RandomBatches:
    """Sampler: a number of batches of random pairs."""

    pairs: int
    batch_size: int
    count: int

    def __iter__(self) -> Iterator[list[int]]:
        """Rows of pairs, a batch at a time."""
        for _ in range(self.count):
            yield torch.randperm(self.pairs)[: self.batch_size].tolist()

    def __len__(self) -> int:
        """The number of batches."""
        return self.count


class OnDevice:
    """Draws pairs and makes their views on the device, a batch at a time."""

    def __init__(self, work: Work, device: torch.device, make_view: Callable):
        """Copy the pixels to the device; make_view is `kornia_view` or another."""
        images = torch.from_numpy(work.images).permute(0, 3, 1, 2)
        self.images = images.to(device)
        self.pairs = torch.from_numpy(work.pairs).long().to(device)
        self.batch_size = work.batch_size
        # Equal views are made together.
        self.together = work.views[0] == work.views[1]
        views = work.views[:1] if self.together else work.views
        self.views = [make_view(view).to(device) for view in views]

    def __call__(self) -> Views:
        """The views of a batch of random pairs."""
        n, device = self.batch_size, self.pairs.device
        rows = self.pairs[torch.randint(len(self.pairs), (n,), device=device)]
        coin = torch.rand(n, 1, device=device) < 0.5
        rows = torch.where(coin, rows.flip(1), rows)
        pictures = [self.images[rows.T.flatten()]]
        if not self.together:
            pictures = pictures[0].chunk(2)
        views = [
            view(x.float() / 255) for view, x in zip(self.views, pictures, strict=True)
        ]
        views = views[0].chunk(2) if self.together else views
        return [x.contiguous(memory_format=torch.channels_last) for x in views]


def kornia_view(view: dict[str, Any]) -> nn.Module:
    """A view by kornia: random numbers of its own for each image (one order of colours).

    Its crop does not antialias.
    """
    import kornia.augmentation as k

    size, kernel = view["size"], view["kernel_size"]
    operations = [
        k.RandomResizedCrop(
            (size, size),
            view["crop_scale"],
            view["crop_ratio"],
            resample=view["interpolation"],
            cropping_mode="resample",  # the whole batch at once
        ),
        k.RandomHorizontalFlip(p=view["flip"]),
        k.ColorJitter(*colours(view), p=view["jitter"]),
        k.RandomGrayscale(p=view["grayscale"]),
        k.RandomGaussianBlur((kernel, kernel), view["blur_sigma"], p=view["blur"]),
    ]
    if view["solarize"]:
        at = view["solarize_threshold"]
        operations.append(k.RandomSolarize((at, at), (0.0, 0.0), p=view["solarize"]))
    return nn.Sequential(*operations, k.Normalize(view["mean"], view["std"]))


def torchvision_view(view: dict[str, Any]) -> nn.Module:
    """A view by torchvision v2: the whole batch gets the same random numbers."""
    v2 = torchvision.transforms.v2
    size, kernel = view["size"], view["kernel_size"]
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                size,
                view["crop_scale"],
                view["crop_ratio"],
                v2.InterpolationMode(view["interpolation"]),
            ),
            v2.RandomHorizontalFlip(view["flip"]),
            v2.RandomApply([v2.ColorJitter(*colours(view))], view["jitter"]),
            v2.RandomGrayscale(view["grayscale"]),
            v2.RandomApply([v2.GaussianBlur(kernel, view["blur_sigma"])], view["blur"]),
            v2.RandomSolarize(view["solarize_threshold"], view["solarize"]),
            v2.Normalize(view["mean"], view["std"]),
        ]
    )


def colours(view: dict[str, Any]) -> list[float]:
    """Brightness, contrast, saturation and hue."""
    return [view[name] for name in ("brightness", "contrast", "saturation", "hue")]


# Peers


class Peer(NamedTuple):
    """What takes turns.

    Attributes:
        turn: makes the steps of a turn; returns pairs a second.
        peak_gb: the most memory of a GPU that a step took, with network and optimiser;
            None on a CPU.
    """

    turn: Callable[[], float]
    peak_gb: float | None


def lightly_peer(work: Work, settings: Settings) -> Peer:
    """lightly as its users run it: PIL images, a loader with workers."""
    data, device = PairData(work), settings.device
    # Before the clock starts the loader's queue is filled and used up once, and when it
    # stops the queue is as full as it would stay: what is timed is the steady state. And
    # no worker is busy in another one's turn.
    fill = PREFETCH * settings.workers
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=RandomBatches(
            len(data), work.batch_size, fill + settings.steps + fill
        ),
        num_workers=settings.workers,
        prefetch_factor=PREFETCH,
        persistent_workers=True,
        # A fork would copy the locks of jax's threads.
        multiprocessing_context="spawn",
        pin_memory=device.type == "cuda",
    )

    def to_device(batch: Views) -> Views:
        moved = [x.to(device, non_blocking=True) for x in batch]
        return [x.contiguous(memory_format=torch.channels_last) for x in moved]

    pairs = [data[i] for i in range(work.batch_size)]
    example = to_device(torch.utils.data.default_collate(pairs))
    with peak_memory(device) as peak:
        step = make_step(work, settings, example, lightly=True)
        step(example)

    def turn() -> float:
        batches = iter(loader)
        for _ in range(fill):
            step(to_device(next(batches)))
        speed = timed(lambda: step(to_device(next(batches))), work, settings)
        for _ in batches:
            pass
        return speed

    return Peer(turn, peak["gb"])


def plain_peers(
    work: Work, settings: Settings, make_view: Callable[[dict], nn.Module]
) -> tuple[Peer, Peer]:
    """Plain PyTorch: one that makes its views on the device, and one that has them.

    The second trains on the same views again and again. Both share one network.
    """
    draw = OnDevice(work, settings.device, make_view)
    views = draw()
    with peak_memory(settings.device) as peak:
        step = make_step(work, settings, views, lightly=False)
        step(views)
    return (
        Peer(lambda: timed(lambda: step(draw()), work, settings), peak["gb"]),
        Peer(lambda: timed(lambda: step(views), work, settings), peak["gb"]),
    )


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, float | None]]:
    """Fills in "gb": what PyTorch took inside at most, over what it had before."""
    found: dict[str, float | None] = {"gb": None}
    if device.type != "cuda":
        yield found
        return
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield found
    found["gb"] = (torch.cuda.max_memory_allocated() - before) / 1e9


def timed(train: Callable[[], Any], work: Work, settings: Settings) -> float:
    """Pairs a second of the steps of a turn."""
    synchronize(settings.device)
    start = time.perf_counter()
    for _ in range(settings.steps):
        train()
    synchronize(settings.device)
    return settings.steps * work.batch_size / (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    """Wait for the GPU; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize()
