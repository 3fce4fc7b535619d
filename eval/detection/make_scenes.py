"""Compose scenes for detection from the embedded drawings, in PASCAL VOC's layout.

    python -m eval.detection.make_scenes --out=scenes --train=1000 --test=500 --seed=0

Train and test a detector on them with the store folder:scenes, splits train and test. The
store "scenes" holds those of the default numbers, made once. What they show:
`eval.detection.data.scenes`.
"""

import pathlib

from absl import flags

from eval.detection.data import scenes
from sp_jax import cli

_OUT = flags.DEFINE_string("out", None, "Folder to write, new or empty.", required=True)
_TRAIN = flags.DEFINE_integer("train", scenes.TRAIN, "Scenes of the split train.", 1)
_TEST = flags.DEFINE_integer("test", scenes.TEST, "Scenes of the split test.", 1)
_SEED = flags.DEFINE_integer("seed", scenes.SEED, "Seed of all random choices.", 0)


def make() -> None:
    """Write the scenes, and print what was written."""
    out = pathlib.Path(_OUT.value).expanduser()
    scenes.write(out, _TRAIN.value, _TEST.value, _SEED.value)
    print(
        f"{_TRAIN.value} scenes for training and {_TEST.value} for test, with objects of "
        f"{len(scenes.CLASSES)} classes, written to {out}"
    )


if __name__ == "__main__":
    cli.run(make)
