r"""Write the backbone of a run for other libraries.

python -m sp_jax.export --checkpoint=RUN --out=backbone.safetensors
python -m sp_jax.export --checkpoint=RUN --out=backbone.pth
python -m sp_jax.export --checkpoint=RUN --out=FOLDER --format=huggingface
python -m sp_jax.export --checkpoint=RUN --out=backbone.pkl --format=detectron2

Of another library's file it makes one that says what the first one did not:

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
    "File: .safetensors, .pth (needs PyTorch) or .pkl; or a folder for transformers.",
    required=True,
)
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    weights.NAMINGS,
    "Names of the parameters; by default torchvision's for a ResNet, timm's for a ViT.",
)
_SAID = {
    "network": flags.DEFINE_string(
        "network", None, "Of several in a file: how its names begin, or a part of that."
    ),
    "heads": flags.DEFINE_integer("heads", None, "Of a file's ViT: heads.", 1),
    "size": flags.DEFINE_integer("size", None, "Of a file: pixels of the images.", 1),
    "mean": flags.DEFINE_list("mean", None, "Of a file: three means of the colours."),
    "std": flags.DEFINE_list(
        "std", None, "Of a file: their three standard deviations."
    ),
}


def main() -> None:
    """Load, write and say what was written."""
    weights.check_target(_OUT.value, _FORMAT.value)
    said = {name: flag.value for name, flag in _SAID.items() if flag.value is not None}
    for name in {"mean", "std"} & said.keys():
        try:
            said[name] = tuple(map(float, said[name]))
        except ValueError:
            raise UserError(f"--{name} must be three numbers with commas.") from None
    if not said:
        backbone = sp_jax.load(_CHECKPOINT.value)
    elif weights.find_file(_CHECKPOINT.value) is None:
        raise UserError(
            f"--{min(said)} is for a file of weights, and {_CHECKPOINT.value} is none."
        )
    else:
        backbone = weights.load(_CHECKPOINT.value, **said)
    naming = _FORMAT.value or weights.names_of(backbone.module)[0]
    path = weights.save(backbone, _OUT.value, naming)
    print(weights.describe(backbone))
    print(f"written to {path}, with the names of {naming}")


if __name__ == "__main__":
    xla_flags.set_cpu_flags()
    cli.run(main)
