r"""Write the backbone of a run for other libraries.

python -m sp_jax.export --checkpoint=RUN --out=backbone.safetensors
python -m sp_jax.export --checkpoint=RUN --out=backbone.pth --format=huggingface
python -m sp_jax.export --checkpoint=RUN --out=backbone.pkl --format=detectron2
"""

from absl import flags

import sp_jax
from input_pipeline import cli
from sp_jax import weights, xla_flags
from sp_jax.models.vit import ViT

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run folder, checkpoint or file of weights.", required=True
)
_OUT = flags.DEFINE_string(
    "out", None, "File: .safetensors, .pth (needs PyTorch) or .pkl.", required=True
)
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    weights.NAMINGS,
    "Names of the parameters; by default torchvision's for a ResNet, timm's for a ViT.",
)


def main() -> None:
    """Load, write and say what was written."""
    backbone = sp_jax.load(_CHECKPOINT.value)
    naming = _FORMAT.value or (
        "timm" if isinstance(backbone.module, ViT) else "torchvision"
    )
    path = weights.save(backbone, _OUT.value, naming)
    size = path.stat().st_size / 1e6
    print(
        f"{path}: {size:.1f} MB, names of {naming}; images of {backbone.size} px, "
        f"mean {backbone.mean}, std {backbone.std}"
    )


if __name__ == "__main__":
    xla_flags.set_cpu_flags()
    cli.run(main)
