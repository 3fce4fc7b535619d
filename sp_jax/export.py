r"""Write the backbone of a run for other libraries, without heads and optimiser.

python -m sp_jax.export --checkpoint=RUN --out=backbone.safetensors
python -m sp_jax.export --checkpoint=RUN --out=backbone.pth
python -m sp_jax.export --checkpoint=RUN --out=FOLDER --licence=apache-2.0
python -m sp_jax.export --checkpoint=RUN --out=FOLDER --format=huggingface
python -m sp_jax.export --checkpoint=RUN --out=backbone.pkl --format=detectron2

A folder gets a model card, README.md, with code that loads it in each library that can.

It also adds to another library's file what that file does not say:

python -m sp_jax.export --checkpoint=vit.pth --heads=6 --mean=0.5,0.5,0.5 --std=0.5,0.5,0.5 \
    --out=vit.safetensors
"""

from absl import flags

import sp_jax
from sp_jax import cli, weights, xla_flags
from sp_jax.errors import UserError

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run, checkpoint, or file or folder of weights.", required=True
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "File: .safetensors, .pth (needs PyTorch) or .pkl; or a folder, with a model card.",
    required=True,
)
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    weights.NAMINGS,
    "Names of the parameters; by default torchvision's for a ResNet and timm's for a ViT, in "
    "a folder the names that most libraries can load.",
)
_LICENCE = flags.DEFINE_string(
    "licence",
    None,
    "Licence on the model card of a folder: an identifier of the Hugging Face Hub, or text.",
)
_SAID = {
    "network": flags.DEFINE_string(
        "network",
        None,
        "Which network, if a file has several: the prefix of its names, or a part of it.",
    ),
    "heads": flags.DEFINE_integer(
        "heads", None, "Number of heads, for a ViT in a file.", 1
    ),
    "size": flags.DEFINE_integer(
        "size", None, "Side of the images in pixels, for a file.", 1
    ),
    "mean": flags.DEFINE_list("mean", None, "Three means of the colours, for a file."),
    "std": flags.DEFINE_list(
        "std", None, "Three standard deviations of the colours, for a file."
    ),
}


def main() -> None:
    """Load, write and report what was written."""
    target = weights.check_target(_OUT.value, _FORMAT.value)
    folder = not target.suffix
    replaced = (target / "model.safetensors" if folder else target).is_file()
    if folder:
        # This program comes after eval, as sp_jax.main does; a file does not need eval.
        from eval import card
    said = {name: flag.value for name, flag in _SAID.items() if flag.value is not None}
    for name in {"mean", "std"} & said.keys():
        try:
            said[name] = tuple(map(float, said[name]))
        except ValueError:
            raise UserError(
                f"--{name} must be three numbers, separated by commas."
            ) from None
    if not said:
        backbone = sp_jax.load(_CHECKPOINT.value)
    elif weights.find_file(_CHECKPOINT.value) is None:
        raise UserError(
            f"--{min(said)} is for a file of weights, but {_CHECKPOINT.value} is not one."
        )
    else:
        backbone = weights.load(_CHECKPOINT.value, **said)
    if folder:
        naming = _FORMAT.value or weights.choose_naming(backbone)
        name = target.absolute().name
        text = card.make_card(backbone, _CHECKPOINT.value, naming, name, _LICENCE.value)
    else:
        naming = _FORMAT.value or weights.names_of(backbone.module)[0]
    path = weights.save(backbone, target, naming)
    if folder:
        weights.write_card(path, text)
    print(weights.describe(backbone))
    place = ", replacing an earlier export" if replaced else ""
    print(f"written to {path}{place}, with the names of {naming}")
    if naming != "detectron2":  # whose config has the widths
        print(weights.describe_loaders(backbone, naming, folder))


if __name__ == "__main__":
    xla_flags.set_cpu_flags()
    cli.run(main)
