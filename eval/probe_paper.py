"""The linear probe as the papers train it: a linear layer on random crops and flips.

The backbone is frozen and in evaluation mode. Each epoch sees a new random resized crop (8 %
to all of an image) and flip of every image. The recipe, from optimiser to schedule, is of the
method's own evaluation code on ImageNet: `PROBE` in the method's file, and a table of all in
docs/evaluation.md. Momentum is 0.9. A cosine falls once an epoch, that of SimCLR and BYOL
every step. The layer starts at weights of standard deviation 0.01 and no bias; both decay.

SupCon and NNCLR take SimCLR's recipe: SupCon's own is RMSProp with an exponential decay, and of
NNCLR we know no code.

Not as in the sources: the last epoch counts, not the one that is best on the test images. No
learning rate is swept, as BYOL's and DINO's were. DINO's code is for ViTs; the learning rate
for its ResNet is that of the published log, at a batch that is not known. PIRL's probe has a
batch normalisation before the layer, and is the best of several layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from eval.supervised import train_and_test, whole_batch
from eval.task import Task
from sp_jax import methods, optim
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.methods.probe import ProbeRecipe
from sp_jax.optim.transforms import scale_by_larc

MOMENTUM = 0.9
SMALLEST_CROP = 0.08  # of the image's area, torchvision's default


def recipes() -> dict[str, ProbeRecipe]:
    """The recipes of all methods; `dino_resnet` is DINO's for networks without attention."""
    found = {name: methods.get(name).PROBE for name in methods.NAMES}
    return found | {"dino_resnet": methods.get("dino").PROBE_RESNET}


def find_recipe(name: str | None, backbone: Backbone) -> ProbeRecipe:
    """The recipe of this name; for None that of the method that trained the backbone.

    Raises:
      UserError: there is no such recipe, or no method to take it from.
    """
    found = recipes()
    known = ", ".join(found)
    if name is None:
        config = backbone.info.get("config", {})
        name = config.get("method") or backbone.info.get("method")
        if name == "dino" and not backbone.module.is_transformer:
            name = "dino_resnet"
        if name and "." in name:  # a user's own method
            found[name] = getattr(methods.get(name), "PROBE", None)
    if recipe := found.get(name):
        return recipe
    said = f"There is no recipe {name!r}"
    if not name:
        said = "There is no default recipe, because the method is unknown"
    raise UserError(f"{said}: choose one of {known}.")


def make_optimizer(recipe: ProbeRecipe, steps: int) -> optax.GradientTransformation:
    """The optimiser of a recipe; `steps` is the length of an epoch."""
    hold = 1 if recipe.every_step else steps
    schedule = optim.warmup_cosine(recipe.peak, recipe.epochs * steps, 0, hold=hold)
    if recipe.drops:

        def schedule(step: jax.Array) -> jax.Array:
            done = sum(step >= epoch * steps for epoch in recipe.drops)
            return recipe.peak * 0.1**done

    decay = scale_by_larc if recipe.larc else optax.add_decayed_weights
    return optax.chain(
        decay(recipe.weight_decay),
        optax.trace(MOMENTUM, recipe.nesterov),
        optax.scale_by_learning_rate(schedule),
    )


def fit_paper(
    extractor: Extractor, task: Task, recipe: ProbeRecipe, seed: int = 0
) -> tuple[float, ProbeRecipe]:
    """Train a linear layer on the features of random crops and flips, and test it.

    The backbone is not changed. With fewer images than the recipe's batch, they all are one.
    The seed is that of the first weights, of the order of the images and of the crops.

    Returns:
      The test accuracy in [0, 1], and the recipe with the batch that was taken.

    Raises:
      UserError: a loss is NaN or infinite, or there are fewer images than devices.
    """
    size = whole_batch(len(task.train_rows), recipe.batch_size)
    recipe = recipe.resized(batch_size=size)
    first, draws = jax.random.split(jax.random.key(seed))

    def init(_: Any, width: int) -> Any:
        kernel = 0.01 * jax.random.normal(first, (width, task.num_classes))
        return {"kernel": kernel, "bias": jnp.zeros(task.num_classes)}, ()

    def apply(layer: Any, stats: Any, variables: Any, x: jax.Array, _: bool) -> Any:
        features = extractor.backbone.module.apply(variables, x, False)
        # Full precision, so that a GPU (TF32 by default) and a CPU agree.
        exact = jax.lax.Precision.HIGHEST
        logits = jnp.dot(features, layer["kernel"], precision=exact)
        return logits + layer["bias"], stats

    accuracy = train_and_test(
        extractor,
        task,
        init,
        apply,
        make_optimizer(recipe, len(task.train_rows) // size),
        smallest_crop=SMALLEST_CROP,
        key=draws,
        epochs=recipe.epochs,
        batch_size=size,
        seed=seed,
        what="training a linear layer",
        diverged="The linear probe diverged in epoch {epoch}: its recipe does not suit these "
        "features; choose another.",
    )
    return accuracy, recipe
