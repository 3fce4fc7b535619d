"""ViTs against timm's on the same weights, and DINO's and MoCo v3's additions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sp_jax import methods, models, optim
from sp_jax.models.vit import ViT, resize_position, sincos_position

SMALL = {"dim": 48, "depth": 3, "heads": 3, "patch_size": 8, "image_size": 32}


def variables_of(vit, size, seed=0):
    """Random weights, so that no term is hidden by a zero."""
    shapes = jax.eval_shape(
        lambda: vit.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), False)
    )
    rng = np.random.default_rng(seed)

    def draw(path, x):
        noise = rng.normal(size=x.shape)
        return 1 + 0.2 * noise if path[-1].key == "scale" else 0.2 * noise

    return jax.tree.map_with_path(draw, shapes)


def to_timm(params, network):
    """Copy our parameters into timm's network; returns their names by ours."""
    import torch

    names, state = {}, {}
    for path, value in jax.tree_util.tree_flatten_with_path(params)[0]:
        keys = [p.key for p in path]
        name = ".".join(keys)
        name = name.replace("block", "blocks.") if keys[0].startswith("block") else name
        name = name.replace("kernel", "weight").replace("scale", "weight")
        value = np.asarray(value)
        if keys[-1] == "kernel":
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        state[name] = torch.tensor(value)
        names["/".join(keys)] = name
    network.load_state_dict(state)
    return names


def timm_vit(**options):
    from tests.torchvision_ref import torch, torchvision  # noqa: F401 timm needs it

    timm = pytest.importorskip("timm.models.vision_transformer")
    return timm.VisionTransformer(num_classes=0, global_pool="token", **options)


def test_equals_timm_in_float64():
    """The output and every gradient."""
    network = timm_vit(
        img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3
    ).double()
    import torch

    vit = ViT(**SMALL, dtype=jnp.float64)
    variables = variables_of(ViT(**SMALL), 32)
    names = to_timm(variables["params"], network)
    x = np.random.default_rng(1).normal(size=(4, 32, 32, 3))
    weights = np.random.default_rng(2).normal(size=(4, 48))
    out = network(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    (out * torch.from_numpy(weights)).sum().backward()
    with jax.enable_x64(True):

        def loss(params):
            h = vit.apply({"params": params}, x, True)
            return jnp.sum(h * weights), h

        grads, h = jax.device_get(
            jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
        )
    np.testing.assert_allclose(h, out.detach().numpy(), atol=1e-9)
    theirs = dict(network.named_parameters())
    flat = jax.tree_util.tree_flatten_with_path(grads)[0]
    assert len(flat) == len(theirs)
    for path, got in flat:
        keys = [p.key for p in path]
        want = theirs[names["/".join(keys)]].grad.numpy()
        if keys[-1] == "kernel":
            want = want.transpose(2, 3, 1, 0) if want.ndim == 4 else want.T
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error < 1e-8, (keys, error)


def test_equals_timm_in_float32():
    network = timm_vit(
        img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3
    ).eval()
    import torch

    vit = ViT(**SMALL)
    variables = jax.tree.map(lambda x: np.float32(x), variables_of(vit, 32))
    to_timm(variables["params"], network)
    x = np.random.default_rng(1).normal(size=(4, 32, 32, 3)).astype(np.float32)
    want = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).detach().numpy()
    for train in (False, True):
        got = vit.apply(variables, x, train)
        np.testing.assert_allclose(got, want, atol=1e-4)
    low = ViT(**SMALL, dtype=jnp.bfloat16).apply(variables, x, False)
    assert low.dtype == jnp.float32 and np.abs(low - want).max() < 0.1


@pytest.mark.parametrize(
    "name, dim, heads",
    [("vit_tiny", 192, 3), ("vit_small", 384, 6), ("vit_base", 768, 12)],
)
def test_sizes_are_timms(name, dim, heads):
    network = timm_vit(
        img_size=64, patch_size=8, embed_dim=dim, depth=12, num_heads=heads
    )
    vit = models.get(name, patch_size=8)
    params = jax.eval_shape(
        lambda: vit.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), False)
    )["params"]
    ours = sum(p.size for p in jax.tree.leaves(params))
    assert ours == sum(p.numel() for p in network.parameters())
    assert (vit.dim, vit.depth, vit.heads) == (dim, 12, heads)


def resized_by_torch(position, wanted):
    """DINO's interpolation of a position embedding to wanted x wanted patches."""
    torch = pytest.importorskip("torch")
    own, dim = round((position.shape[1] - 1) ** 0.5), position.shape[2]
    scale = (wanted + 0.1) / own  # the official code's guard against rounding
    grid = torch.tensor(position[:, 1:]).reshape(1, own, own, dim).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(
        grid, scale_factor=(scale, scale), mode="bicubic", recompute_scale_factor=False
    )
    patches = grid.permute(0, 2, 3, 1).reshape(1, -1, dim).numpy()
    return np.concatenate([position[:, :1], patches], axis=1)


@pytest.mark.parametrize("own, wanted", [(8, 4), (8, 12), (4, 2), (8, 5)])
def test_positions_are_interpolated_as_in_dino(own, wanted):
    position = np.random.default_rng(0).normal(size=(1, 1 + own * own, 6))
    position = position.astype(np.float32)
    got = resize_position(jnp.asarray(position), (wanted, wanted))
    want = resized_by_torch(position, wanted)
    np.testing.assert_array_equal(got[:, :1], want[:, :1])
    np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("size", [16, 48])
def test_other_sizes_equal_timm_with_the_resized_positions(size):
    network = timm_vit(
        img_size=size, patch_size=8, embed_dim=48, depth=3, num_heads=3
    ).eval()
    import torch

    vit = ViT(**SMALL)
    params = jax.tree.map(np.float32, variables_of(vit, 32))["params"]
    resized = resized_by_torch(params["pos_embed"], size // 8)
    to_timm({**params, "pos_embed": resized}, network)
    x = np.random.default_rng(1).normal(size=(4, size, size, 3)).astype(np.float32)
    want = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).detach().numpy()
    got = vit.apply({"params": params}, x, False)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_sincos_positions_are_moco_v3s():
    """The official computation on a square grid, with PyTorch's own meshgrid."""
    torch = pytest.importorskip("torch")
    side, dim = 3, 8
    first, second = torch.meshgrid(
        torch.arange(side, dtype=torch.float64),
        torch.arange(side, dtype=torch.float64),
        indexing="ij",
    )
    omega = 1 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    w, h = (torch.outer(v.flatten(), omega) for v in (first, second))
    want = torch.cat([w.sin(), w.cos(), h.sin(), h.cos()], dim=1)
    got = sincos_position(side, side, dim)[0]
    np.testing.assert_array_equal(got[0], np.zeros(dim))
    np.testing.assert_allclose(got[1:], want.numpy(), atol=1e-12)


def test_moco_v3_options():
    vit = ViT(**SMALL, position="sincos", freeze_patch_embedding=True)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    params = vit.init(jax.random.key(0), x, False)["params"]
    assert "pos_embed" not in params
    # Query, key and value are Xavier matrices of their own: (6 / 2 dim)^1/2.
    limit = np.abs(params["block0"]["attn"]["qkv"]["kernel"]).max()
    assert 0.95 * (6 / 96) ** 0.5 < limit <= (6 / 96) ** 0.5
    limit = np.abs(params["patch_embed"]["proj"]["kernel"]).max()
    assert 0.95 * (6 / (192 + 48)) ** 0.5 < limit <= (6 / (192 + 48)) ** 0.5
    grads = jax.grad(lambda p: vit.apply({"params": p}, x, True).sum())(params)
    assert not any(np.any(g) for g in jax.tree.leaves(grads["patch_embed"]))
    assert np.any(grads["block0"]["attn"]["qkv"]["kernel"])


def test_the_frozen_projection_keeps_its_bits():
    """Without gradient, and by MoCo v3's rules without weight decay, AdamW leaves it."""
    vit = ViT(**SMALL, position="sincos", freeze_patch_embedding=True)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    params = {"backbone": jax.tree.map(np.float32, variables_of(vit, 32)["params"])}
    rules = methods.get("moco_v3").RULES
    tx = optim.by_rules(optim.adamw, rules, lambda _: 0.1, weight_decay=0.1)

    @jax.jit
    def step(params, state):
        grads = jax.grad(
            lambda p: jnp.sum(vit.apply({"params": p["backbone"]}, x, True)[:, :5])
        )(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    new, state = params, tx.init(params)
    for _ in range(3):
        new, state = step(new, state)
    old, new = params["backbone"], new["backbone"]
    jax.tree.map(np.testing.assert_array_equal, new["patch_embed"], old["patch_embed"])
    others = [jax.tree.leaves({**tree, "patch_embed": {}}) for tree in (old, new)]
    assert all(np.any(a != b) for a, b in zip(*others, strict=True))


def test_drop_path():
    """The last of three blocks is dropped half the time, the second a quarter."""
    vit = ViT(**SMALL, drop_path=0.5)
    x = np.random.default_rng(0).normal(size=(64, 32, 32, 3)).astype(np.float32)
    params = jax.tree.map(np.float32, variables_of(vit, 32))["params"]
    # Only the two branches of one block move the class token: the others give zero.
    for block, rate in (("block0", 0.0), ("block1", 0.25), ("block2", 0.5)):
        alone = dict(params)
        for other in {"block0", "block1", "block2"} - {block}:
            alone[other] = jax.tree.map(np.zeros_like, params[other])
        silent = jax.tree.map(np.zeros_like, params[block])
        alone[block] = {
            **silent,
            "mlp": {
                **silent["mlp"],
                "fc2": {
                    "kernel": silent["mlp"]["fc2"]["kernel"],
                    "bias": np.ones(48, np.float32),
                },
            },
        }

        def tokens(key, alone=alone):
            rngs = None if key is None else {"drop_path": key}
            _, state = vit.apply(
                {"params": alone},
                x,
                True,
                rngs=rngs,
                capture_intermediates=lambda module, _: module.name == "block2",
                mutable=["intermediates"],
            )
            return state["intermediates"]["block2"]["__call__"][0][:, 0, 0]

        base = float(tokens(None)[0]) - 1.0
        seen = np.concatenate([tokens(jax.random.key(i)) for i in range(8)]) - base
        dropped = np.isclose(seen, 0, atol=1e-5)
        assert abs(dropped.mean() - rate) < 0.07
        np.testing.assert_allclose(seen[~dropped], 1 / (1 - rate), atol=1e-5)


def test_without_a_key_nothing_is_dropped():
    vit, plain = ViT(**SMALL, drop_path=0.5), ViT(**SMALL)
    variables = variables_of(plain, 32)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        vit.apply(variables, x, True), plain.apply(variables, x, True)
    )


def test_errors():
    with pytest.raises(ValueError, match="vit_tiny has no option 'stem'.*patch_size"):
        models.get("vit_tiny", stem="small")
    with pytest.raises(ValueError, match="resnet18 has no option 'patch_size'"):
        models.get("resnet18", patch_size=8)
    with pytest.raises(ValueError, match="patch_size 7 does not divide"):
        models.get("vit_tiny", patch_size=7)
    with pytest.raises(ValueError, match="no position 'rotary'"):
        models.get("vit_tiny", position="rotary")
    with pytest.raises(ValueError, match="5 heads"):
        models.get("vit_tiny", heads=5)
    vit = ViT(**SMALL)
    with pytest.raises(
        ValueError, match="20 x 20 px cannot be cut into patches of 8 px"
    ):
        vit.init(jax.random.key(0), jnp.zeros((1, 20, 20, 3)), False)
