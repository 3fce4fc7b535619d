"""stable-pretraining's JAX back end among the peers, and what a laptop trains."""

import contextlib
import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from benchmarks import peers
from benchmarks.training import make_config, model_name, open_images
from configs import quickstart
from sp_jax.models import get

PATCHES = {"patch_size": 16, "image_size": 64}
MODELS = {
    "resnet50": {"stem": "imagenet"},
    "resnet18": {"stem": "small"},
    "resnet18 of width 16": {"stem": "imagenet", "width": 16},
    "vit_small": PATCHES | {"patch_size": 8},
}


def test_quick_is_the_quickstart():
    config, theirs = make_config("simclr", "quick", None), quickstart.get_config()
    assert model_name(config) == "quick" and config.batch_size == 128
    theirs.epochs, theirs.evals = config.epochs, config.evals
    assert config.to_dict() == theirs.to_dict()
    assert make_config("simclr", "resnet18", None).batch_size == 256
    assert make_config("vicreg", "quick", 8).batch_size == 8


@pytest.mark.parametrize("package", ["json", "not_there"])
def test_it_has_a_process_of_its_own_where_it_is_installed(
    package, monkeypatch, capsys
):
    """The program as it is, with sides that only say who they are."""
    opened = []

    @contextlib.contextmanager
    def process(open_side, *args):
        opened.append(open_side)
        names = {peers.jax_side: ["sp_jax"], peers.spt_side: ["spt_jax"]}
        turns = {name: lambda steps: 1.0 for name in names.get(open_side) or args[1]}
        yield peers.Side("cpu", dict.fromkeys(turns, "said"), turns)

    monkeypatch.setattr(peers, "process", process)
    monkeypatch.setitem(peers.NEEDS, "torch", ("json",))
    monkeypatch.setitem(peers.NEEDS, "spt_jax", (package,))
    peers.main(["--models=quick", "--peers=spt_jax,torch", "--rounds=1"])
    printed = capsys.readouterr().out
    rows = [row.split(" | ")[2] for row in printed.splitlines() if "said" in row]
    if package == "json":
        assert opened == [peers.jax_side, peers.torch_side, peers.spt_side]
        assert rows == ["sp_jax", "torch", "spt_jax"]
    else:
        assert opened == [peers.jax_side, peers.torch_side]
        assert rows == ["sp_jax", "torch"]
        assert "spt_jax is left out: not_there not installed." in printed


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_it_trains_the_same_networks(method):
    missing = [x for x in peers.NEEDS["spt_jax"] if importlib.util.find_spec(x) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    config = make_config(method, "vit_tiny", 4)
    config.data.store = "emoji"
    config.model.update(PATCHES, depth=1)
    config.method_options.projection_dim = 16
    work = peers.make_work(config, open_images(config))
    with peers.process(measured_side, work) as side:
        for name, options in MODELS.items():
            init = functools.partial(get(name.split()[0], **options).init, train=False)
            x = jnp.zeros((2, 64, 64, 3))
            params = jax.eval_shape(init, jax.random.key(0), x)["params"]
            count = sum(x.size for x in jax.tree.leaves(params))
            assert side.settings.pop(name) == str(count)
        assert side.settings == {"spt_jax": "its trainer"}
        assert side.turns["spt_jax"](2) > 0


@contextlib.contextmanager
def measured_side(work):
    """In a process, since its import changes the log: parameters of its networks, too."""
    with peers.spt_side(work) as side:
        from flax import nnx

        from benchmarks import peers_spt

        for name, options in MODELS.items():
            model = {"name": name.split()[0], **options}
            network = nnx.eval_shape(
                lambda model=model: peers_spt.make_backbone(model, None, nnx.Rngs(0))
            )
            leaves = jax.tree.leaves(nnx.state(network, nnx.Param))
            side.settings[name] = str(sum(x.size for x in leaves))
        yield side
