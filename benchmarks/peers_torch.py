"""The training step of `benchmarks.peers` in PyTorch, without jax.

It is written twice. "torch" is as fast as PyTorch can be: a loss that never waits for the
device, LARS over all parameters at once, views by kornia where the pixels are, and on a GPU
the whole step as one CUDA graph. "lightly" is as its users write it: its transforms of PIL
images in a loader's worker processes, its loss, its LARS. The networks are the same.
"""

import math
import os
import time
from collections.abc import Callable
from typing import Any

from PIL import Image

from benchmarks.peers_work import Work
from tests.torchvision_ref import torch, torchvision

nn, functional = torch.nn, torch.nn.functional

Views = list[torch.Tensor]  # two, float32 [B, 3, S, S]
Step = Callable[[Views], Any]  # trains; may return before the device is done

PREFETCH = 2  # batches a worker makes ahead; the loader's default
TRIALS = 5  # steps of each setting, of which the fastest counts


# Networks and losses


def make_backbone(model: dict[str, Any]) -> tuple[nn.Module, int]:
    """torchvision's ResNet or timm's ViT without its classifier; the features' width."""
    options = dict(model)
    name, size = options.pop("name"), options.pop("image_size", 64)
    if name.startswith("vit"):
        from timm.models import VisionTransformer

        heads = {"vit_tiny": 3, "vit_small": 6, "vit_base": 12}[name]
        network = VisionTransformer(
            size, embed_dim=64 * heads, num_heads=heads, num_classes=0, **options
        )
        return network, network.num_features
    network = ResNet(name, options.get("width", 64), options["stem"] == "small")
    return network, network.bn1.num_features * 8 * network.expansion


class ResNet(torchvision.models.ResNet):
    """torchvision's, of any width, without its classifier; last scales begin at 0."""

    def __init__(self, name: str, width: int, small: bool):
        """Make, for example, "resnet18"; `small` is the stem for small images."""
        kinds, self.width, self.small = torchvision.models.resnet, width, small
        deep = name not in ("resnet18", "resnet34")
        blocks = {"resnet18": (2, 2, 2, 2), "resnet101": (3, 4, 23, 3)}
        kind = kinds.Bottleneck if deep else kinds.BasicBlock
        layers = blocks.get(name, (3, 4, 6, 3))
        super().__init__(kind, layers, zero_init_residual=True)
        self.expansion, self.fc = kind.expansion, nn.Identity()

    def _make_layer(self, block, planes, *args, **options):
        if planes == 64:  # the stem comes before, what is drawn at random after
            kernel, stride = (3, 1) if self.small else (7, 2)
            self.conv1 = nn.Conv2d(
                3, self.width, kernel, stride, kernel // 2, bias=False
            )
            self.bn1, self.inplanes = nn.BatchNorm2d(self.width), self.width
            if self.small:
                self.maxpool = nn.Identity()
        planes = planes * self.width // 64
        return super()._make_layer(block, planes, *args, **options)


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


def make_loss(work: Work, lightly: bool) -> Callable[..., torch.Tensor]:
    """The loss of two projections."""
    temperature = work.options.get("temperature")
    if lightly:
        from lightly import loss

        if work.method == "simclr":
            return loss.NTXentLoss(temperature)
        return loss.VICRegLoss()
    if work.method == "simclr":
        return lambda z1, z2: nt_xent(z1, z2, temperature)
    return vicreg


def autocast(x: torch.Tensor) -> torch.autocast:
    """bfloat16 activations on a GPU, float32 on a CPU: as sp_jax."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda)


class Siamese(nn.Module):
    """SimCLR (both views in one forward) or VICReg (a forward for each)."""

    def __init__(self, backbone, head, loss, joint: bool):
        super().__init__()
        self.network, self.loss = nn.Sequential(backbone, head), loss
        self.joint = joint

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        with autocast(x1):
            if self.joint:
                z1, z2 = self.network(torch.cat([x1, x2])).chunk(2)
            else:
                z1, z2 = self.network(x1), self.network(x2)
        return self.loss(z1.float(), z2.float())


def make_method(work: Work, lightly: bool) -> nn.Module:
    """Network and loss, as `sp_jax.methods` builds them."""
    backbone, width = make_backbone(work.model)
    loss, o = make_loss(work, lightly), work.options
    dim, layers = o["projection_dim"], o["projection_layers"]
    if work.method == "vicreg":
        return Siamese(backbone, mlp(width, *[dim] * layers), loss, joint=False)
    norm = nn.BatchNorm1d(dim)
    norm.register_parameter("bias", None)
    head = nn.Sequential(mlp(*[width] * layers, dim, hidden_bias=False), norm)
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
        cuda = params[0].is_cuda
        return torch.optim.AdamW(groups, rate, fused=True, capturable=cuda)
    if name == "sgd":
        return torch.optim.SGD(groups, rate, recipe["momentum"])
    if lightly:
        from lightly.utils.lars import LARS

        return LARS(groups, rate, recipe["momentum"])
    return Lars(groups, rate, recipe["momentum"])


def make_step(
    work: Work,
    views: Views,
    lightly: bool,
    layout: torch.memory_format,
    compiled: bool = False,
    graph: bool = False,
) -> Step:
    """A new network, and the function that trains it on views like these."""
    method = make_method(work, lightly).to(views[0].device, memory_format=layout)
    optimizer = make_optimizer(method, work.optimizer, lightly)
    loss_of = torch.compile(method, dynamic=False) if compiled else method

    def step(views: Views) -> None:
        optimizer.zero_grad()
        loss_of(*(x.contiguous(memory_format=layout) for x in views)).backward()
        optimizer.step()

    return record(step, views) if graph else step


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
    with torch.cuda.graph(graph):
        step(static)

    def replay(views: Views) -> None:
        for old, new in zip(static, views, strict=True):
            old.copy_(new)
        graph.replay()

    return replay


def fastest_step(work: Work, views: Views, lightly: bool) -> tuple[Step, str]:
    """The step with the fastest settings on these views, and their names.

    Tried are channels_last and contiguous; with the faster of them `torch.compile`; and on
    a GPU a CUDA graph of either, but for lightly, whose loss and LARS wait for the device.
    """
    best: tuple[float, str, Step] | None = None  # the others do not keep their memory

    def attempt(name: str, layout: torch.memory_format, **settings: bool) -> None:
        nonlocal best
        try:
            step = make_step(work, views, lightly, layout, **settings)
            step(views)
            seconds = min(timed(lambda: step(views), 1) for _ in range(TRIALS))
        except Exception as error:  # compilers raise many kinds
            reason = str(error).strip().partition("\n")[0]
            print(f"{name} does not work here and is left out: {reason}")
        else:
            best = min(best or (math.inf,), (seconds, name, step), key=lambda x: x[0])

    attempt("contiguous", torch.contiguous_format)
    attempt("channels_last", torch.channels_last)
    layout = best[1]
    memory_format = getattr(torch, layout.replace("contiguous", "contiguous_format"))
    attempt(f"{layout}, compiled", memory_format, compiled=True)
    if views[0].is_cuda and not lightly:
        attempt(f"{layout}, graph", memory_format, graph=True)
        attempt(f"{layout}, compiled, graph", memory_format, compiled=True, graph=True)
    return best[2], best[1]


def timed(train: Callable[[], Any], steps: int) -> float:
    """Seconds per step."""
    synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        train()
    synchronize()
    return (time.perf_counter() - start) / steps


def synchronize() -> None:
    """Wait for the GPU; a CPU has nothing to wait for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# Views


class PairData(torch.utils.data.Dataset):
    """Two views of a pair by lightly's transforms of PIL images, one pair at a time."""

    def __init__(self, work: Work):
        """Make the transforms of the two views."""
        self.transforms = [lightly_view(view) for view in work.views]
        self.images, self.pairs = work.images, work.pairs

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.pairs)

    def __getitem__(self, i: int) -> Views:
        """The views of pair i; chance decides which image gets which transform."""
        rows = self.pairs[i][:: 1 if torch.rand(()) < 0.5 else -1]
        pictures = [Image.fromarray(self.images[row]) for row in rows]
        both = zip(self.transforms, pictures, strict=True)
        return [transform(picture) for transform, picture in both]


def lightly_view(view: dict[str, Any]) -> Callable[[Image.Image], torch.Tensor]:
    """A view by lightly: BYOL's transform, which has all operations. Its crop is bilinear."""
    from lightly.transforms.byol_transform import BYOLView1Transform

    bright, contrast, saturation, hue = colours(view)
    return BYOLView1Transform(
        input_size=view["size"],
        cj_prob=view["jitter"],
        cj_bright=bright,
        cj_contrast=contrast,
        cj_sat=saturation,
        cj_hue=hue,
        min_scale=view["crop_scale"][0],
        random_gray_scale=view["grayscale"],
        gaussian_blur=view["blur"],
        solarization_prob=view["solarize"],
        sigmas=view["blur_sigma"],
        hf_prob=view["flip"],
        normalize={"mean": view["mean"], "std": view["std"]},
    )


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
    ]
    if view["blur"]:
        blur = k.RandomGaussianBlur(
            (kernel, kernel), view["blur_sigma"], p=view["blur"]
        )
        operations.append(blur)
    if view["solarize"]:
        at = view["solarize_threshold"]
        operations.append(k.RandomSolarize((at, at), (0.0, 0.0), p=view["solarize"]))
    return nn.Sequential(*operations, k.Normalize(view["mean"], view["std"]))


def colours(view: dict[str, Any]) -> list[float]:
    """Brightness, contrast, saturation and hue."""
    return [view[name] for name in ("brightness", "contrast", "saturation", "hue")]


class OnDevice:
    """Draws pairs and makes their views on the device, a batch at a time."""

    def __init__(self, work: Work, device: torch.device):
        """Copy the pixels to the device."""
        self.images = torch.from_numpy(work.images).permute(0, 3, 1, 2).to(device)
        self.pairs = torch.from_numpy(work.pairs).long().to(device)
        self.batch_size = work.batch_size
        self.together = work.views[0] == work.views[1]  # equal views: one call
        views = work.views[:1] if self.together else work.views
        self.views = [kornia_view(view).to(device) for view in views]

    @torch.no_grad()
    def __call__(self) -> Views:
        """The views of a batch of random pairs."""
        n, device = self.batch_size, self.pairs.device
        rows = self.pairs[torch.randint(len(self.pairs), (n,), device=device)]
        swap = torch.rand(n, 1, device=device) < 0.5
        rows = torch.where(swap, rows.flip(1), rows)
        pictures = [self.images[rows.T.flatten()].float() / 255]
        if not self.together:
            pictures = pictures[0].chunk(2)
        views = [view(x) for view, x in zip(self.views, pictures, strict=True)]
        return list(views[0].chunk(2)) if self.together else views


# Turns

Turn = Callable[[int], float]  # makes some steps; returns seconds a step


def make_peers(work: Work, names: list[str]) -> dict[str, tuple[str, Turn]]:
    """For each of "torch", "torch_step" and "lightly": its settings, and its turn."""
    torch.set_num_threads(cores())
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {}
    if {"torch", "torch_step"} & set(names):
        draw = OnDevice(work, device)
        views = draw()
        step, settings = fastest_step(work, views, lightly=False)
        found = {
            "torch": (
                f"kornia, {settings}",
                lambda steps: timed(lambda: step(draw()), steps),
            ),
            "torch_step": (settings, lambda steps: timed(lambda: step(views), steps)),
        }
    if "lightly" in names:
        found["lightly"] = lightly_peer(work, device)
    return {name: found[name] for name in names}


def lightly_peer(work: Work, device: torch.device) -> tuple[str, Turn]:
    """lightly as its users run it: PIL images, a loader with workers."""
    data = PairData(work)
    pairs = [data[i] for i in range(work.batch_size)]
    example = [x.to(device) for x in torch.utils.data.default_collate(pairs)]
    step, settings = fastest_step(work, example, lightly=True)
    workers = cores()

    def turn(steps: int) -> float:
        # Before the clock starts the queue is filled and used up once, and when it stops
        # the queue is as full as it would stay: what is timed is the steady state. And no
        # worker is busy in another one's turn.
        fill = PREFETCH * workers
        draws = (fill + steps + fill) * work.batch_size
        batches = iter(
            torch.utils.data.DataLoader(
                data,
                work.batch_size,
                sampler=torch.utils.data.RandomSampler(data, True, draws),
                num_workers=workers,
                prefetch_factor=PREFETCH,
                pin_memory=device.type == "cuda",
            )
        )

        def train() -> None:
            step([x.to(device, non_blocking=True) for x in next(batches)])

        timed(train, fill)
        seconds = timed(train, steps)
        for _ in batches:
            pass
        return seconds

    return f"{workers} workers, {settings}", turn


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def device_name() -> str:
    """Where PyTorch computes; "cpu" for a CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
