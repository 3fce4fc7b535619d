r"""Detection: a backbone, fine-tuned as Faster R-CNN, and its average precision.

  python -m eval.detection --config=configs/eval/scenes_faster_rcnn_c4.py \
    --checkpoint=runs/quickstart/semantic

  python -m eval.detection --config=configs/eval/voc_faster_rcnn_c4.py \
    --checkpoint=RUN --data=folder:VOCdevkit

The protocol is MoCo's (https://arxiv.org/abs/1911.05722, appendix A.1): all layers are
trained, batch normalisation is over the whole batch, and the last stage of the ResNet is a
part of the head. It is a run like a pre-training, in the same loop: the same command goes on
where it was stopped. Without --checkpoint the network of `config.model` starts at random.

In the folder of the run, by default RUN/detection/CONFIG, are config.json, metrics.jsonl,
checkpoints, `eval/detection.json`, `detections.png` and `detections.npz`, all that was found.
"""

import pathlib

from absl import flags
from ml_collections import ConfigDict

from eval.detection.train import run
from eval.results import run_folder
from sp_jax import program


def main() -> None:
    """Train with the parsed flags; does not return."""
    values = flags.FLAGS

    def start(config: ConfigDict, workdir: pathlib.Path) -> None:
        if values.data:
            config.data.store = values.data
        run(config, workdir, values.checkpoint)

    def folder(name: str) -> pathlib.Path:
        if not values.checkpoint:
            return pathlib.Path("runs") / name
        return run_folder(values.checkpoint) / "detection" / name

    program.main(start, "configs/eval/scenes_faster_rcnn_c4.py", folder)


if __name__ == "__main__":
    flags.DEFINE_string(
        "checkpoint", "", "Run, checkpoint or file; without it, random weights."
    )
    flags.DEFINE_string("data", "", "Store of the images; by default the config's.")
    main()
