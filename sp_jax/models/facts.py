"""What the project needs to know about a backbone besides its features."""

from typing import Any


class Facts:
    """The base class of all backbones, besides `flax.linen.Module`: defaults of their facts.

    A backbone `class Net(Facts, nn.Module)` has a field `dtype`, the compute dtype, and maps
    normalised images [N, H, W, 3] to float32 features [N, D] when called as
    `net(x, train)`. It overrides the facts below that differ for it; a fact may be a class
    attribute, a field, a property or a method.

    Attributes:
        patch_size: the sides of images have to be multiples of it, in pixels.
        image_size: side in pixels of the images that it was made for.
        chunked: a batch goes through it in parts, each normalised by itself.
        is_transformer: it is fine-tuned by AdamW, layer by layer; otherwise by SGD.
        token_kinds: values of its field `tokens` that choose the features; see
            `sp_jax.tokens`. The first is the default.
        first_kernel: path in "params" of the kernel [k, k, 3, D] that is drawn; () if none.
        class_attention: a method `class_attention(variables, x)`: the attention of the class
            token to each patch of images x in the last block, float32
            [N, heads, rows, columns]. None: it cannot be computed.
        stride: pixels of the image from one position of the map to the next, where the
            method `trunk(x, train)` gives a map [N, H/stride, W/stride, C] for detection.
            None: it gives no map.
        last_stage: a method `last_stage(x, train)` that goes on from a part of that map, as
            the head of a detector. None: nothing follows the map.
        weights: name of the module with its names in other libraries (`sp_jax.weights`);
            None if no other library has it.
    """

    patch_size: int = 1
    image_size: int = 224
    chunked: bool = False
    is_transformer: bool = False
    token_kinds: tuple[str, ...] = ("cls",)
    first_kernel: tuple[str, ...] = ()
    # A method, a field or a property of a backbone may stand in their place.
    class_attention: Any = None
    stride: Any = None
    trunk: Any = None
    last_stage: Any = None
    weights: str | None = None

    def layers(self) -> list[str]:
        """A regular expression for the parameters of each layer, the first layer first.

        Names have slashes, as in "block0/attn/qkv/kernel". Layers have learning rates of
        their own in fine-tuning.
        """
        return [""]

    def levels(self) -> list[str]:
        """Names of submodules at four depths whose outputs are maps or tokens; [] if none."""
        return []

    def for_detection(self):
        """The network in the form that a detector needs; `stride` is None if there is none."""
        return self

    def describe(self) -> str:
        """A description in a few words."""
        return type(self).__name__
