"""The model card of an exported folder: only what the files of a training say.

It has the form of the Hugging Face Hub, Markdown after metadata in YAML
(https://huggingface.co/docs/hub/model-cards). Absolute paths of this machine are left out.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from eval.compare.runs import AP, SP, describe
from eval.results import Result, read_results, run_folder
from input_pipeline.pairs.training import pairs_info
from sp_jax import methods, weights
from sp_jax.backbone import Backbone
from sp_jax.train.starts import read_starts

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.-]*")  # of a licence on the Hub
_NOT_SAID = "unknown: the file of weights does not say it"
_KINDS = {
    SP: "semantic pairs (SP), of two different images",
    AP: "augmentation pairs (AP), of an image with itself",
}


def make_card(
    backbone: Backbone,
    checkpoint: str | os.PathLike[str],
    naming: str,
    name: str,
    licence: str | None = None,
) -> str:
    """The text of README.md for an exported folder.

    Args:
      backbone: what is exported.
      checkpoint: where it was loaded from: a run, a checkpoint, or weights in a file or folder.
      naming: of the parameters in the folder.
      name: of the model.
      licence: an identifier of the Hub such as "apache-2.0", or other text; None: unknown.

    Raises:
      UserError: a file of the run, or a result, is damaged.
    """
    module, of_run = backbone.module, "config" in backbone.info
    code = weights.snippets(backbone, naming)
    what = "the mean of the last map"
    if module.is_transformer:
        what = "the class token after the last normalisation"
    count = sum(leaf.size for leaf in jax.tree.leaves(backbone.variables["params"]))
    colours = [", ".join(f"{x:g}" for x in c) for c in (backbone.mean, backbone.std)]
    facts = {
        "network": f"{module.describe()}; {count:,} parameters",
        "images": "{} px; mean ({}), standard deviation ({}) of values from 0 to 1".format(
            backbone.size, *colours
        ),
        "features": f"{weights.count_features(backbone)}, float32: {what}",
        **(_of_run if of_run else _of_file)(backbone, checkpoint),
        "weights": f"SHA-256 of all that determines the features: `{backbone.identity()}`",
        "licence": licence or "unknown: set it before publishing",
    }
    parts = [
        _metadata(backbone, naming, code, licence),
        f"# {name}",
        "This is a backbone alone: it turns an image into features. The folder has no heads "
        "and no state of an optimiser.",
        _table([["", ""], *([f"**{key}**", value] for key, value in facts.items())]),
        "Before publishing, say here what the model is for, where it fails, and on what terms "
        "its training images may be used: the program that wrote this cannot know it.",
        "## Evaluations",
        _evaluations(backbone, checkpoint),
        "## Use",
        _usage(code),
        *(f"### {title}\n\n```python\n{text}```" for title, text in code.items()),
    ]
    if of_run:
        parts += ["## Settings", _settings(_run(backbone, checkpoint).facts)]
    return "\n\n".join(parts) + "\n"


def _metadata(
    backbone: Backbone, naming: str, code: Mapping[str, str], licence: str | None
) -> str:
    if _IDENTIFIER.fullmatch(word := (licence or "unknown").lower()):
        lines = [f"license: {word}"]
    else:
        lines = ["license: other", f"license_name: {json.dumps(licence)}"]
    library = "transformers" if naming == "huggingface" else "timm"
    # The Hub shows how to load it by the library's own means.
    lines.append(f"library_name: {library if 'transformers' in code else 'sp_jax'}")
    lines.append("pipeline_tag: image-feature-extraction")
    tags = ["sp_jax", "self-supervised-learning", _method(backbone)]
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags if tag)]
    return "\n".join(["---", *lines, "---"])


def _method(backbone: Backbone) -> str | None:
    config = backbone.info.get("config", {})
    return config.get("method", backbone.info.get("method"))


def _run(backbone: Backbone, checkpoint: str | os.PathLike[str]) -> Any:
    """The training as `read_run` describes it, at the step of these weights."""
    info, path = backbone.info, pathlib.Path(checkpoint)
    pairs = pairs_info(run_folder(path), info.get("pairs"))
    total, versions = info["run"]["total_steps"], info.get("versions", {})
    return describe(path, info["config"], pairs, info["step"], total, versions)


def _of_run(backbone: Backbone, checkpoint: str | os.PathLike[str]) -> dict[str, str]:
    """The rows of the card about the training."""
    run, size = _run(backbone, checkpoint), backbone.info["run"]
    config, facts = backbone.info["config"], run.facts
    data, (side, resize) = config["data"], backbone.stored
    about = (methods.get(config["method"]).__doc__ or "").split("\n")[0]
    batch = size["batch_size"]
    starts = read_starts(run.folder)
    devices = ", ".join(dict.fromkeys(start["device"] for start in starts))
    return {
        "method": f"{config['method']}. {about}".strip(),
        "data": f"{_public(data['store'])}, split {data['split']}: "
        f"{size['num_images']:,} images are shown, stored at {side} px ({resize}); "
        f"fingerprint `{facts['images']}`",
        "pairs": f"{_KINDS.get(run.kind, run.kind)}; made by `{_public(facts['pairs'])}`",
        "steps": f"{run.step:,} of {run.total:,}, of {batch} pairs each: "
        f"{run.step / size['steps_per_epoch']:.3g} epochs; seed {run.seed}",
        "trained with": f"{run.code or 'unknown versions'}; {devices or 'an unknown device'}"
        + (f"; started on {starts[0]['date'][:10]}" if starts else ""),
    }


def _settings(facts: Mapping[str, Any]) -> str:
    """All settings of the training, without what the rows above say."""
    told = {"kind", "images", "pairs", "step"}
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in sorted(facts.items())
        if value is not None and name not in told
    ]
    text = "Settings of the training; all others were the method's defaults."
    return "\n".join([text, "", "```", *lines, "```"])


def _of_file(backbone: Backbone, checkpoint: str | os.PathLike[str]) -> dict[str, str]:
    """The same rows for weights without a run."""
    info, path = backbone.info, pathlib.Path(checkpoint).absolute()
    method = _method(backbone)
    origin = "from another library" if info["guessed"] else "an earlier export"
    left_out = f"; {len(info['left_out'])} of its arrays are left out"
    return {
        "origin": f"imported from {path.name}, {origin}"
        + (left_out if info["left_out"] else ""),
        "method": method or _NOT_SAID,
        "data": _NOT_SAID,
        "pairs": _NOT_SAID,
        "steps": f"{info['step']:,}" if method else _NOT_SAID,
    }


def _public(text: str) -> str:
    """A text in which absolute paths lose their folders."""
    return re.sub(r"(?<![\w.…])/(?:[^\s,;\"/]+/)+", "…/", text)


def _evaluations(backbone: Backbone, checkpoint: str | os.PathLike[str]) -> str:
    """A table of the headline numbers of exactly these weights."""
    step, own = backbone.info["step"] or 0, backbone.identity()
    every = read_results(run_folder(checkpoint))
    found, floors = [], {}
    for result in every:
        content = result.content
        if result.untrained:
            floors[_asked(result)] = content["result"]
        elif content["step"] == step and content["weights"] in (None, own):
            found.append(result)
    if not found:
        return "No evaluation of these weights is on record."
    rows = [["evaluation", "number", "value", "untrained", "chance", "protocol"]]
    for result in found:
        content, floor = result.content, floors.get(_asked(result), {})
        protocol = _public(content["protocol"])
        for number in content["headline"]:
            values = (
                content["result"][number.name],
                floor.get(number.name),
                number.chance,
            )
            texts = ["" if value is None else f"{value:.4f}" for value in values]
            rows.append([result.name, number.name, *texts, protocol])
            protocol = "″"
    return _table(rows) + (
        "\n\nUntrained: the same network and seed before the first step. Empty: not measured."
    )


def _asked(result: Result) -> tuple[str, str]:
    content = result.content
    return content["protocol"], json.dumps(content["images"], sort_keys=True)


def _usage(code: Mapping[str, str]) -> str:
    """The text before the snippets."""
    text = (
        "Each of these makes the features that are evaluated, from an image that is prepared "
        "in the same way. `folder` is this folder, or the one that "
        "`huggingface_hub.snapshot_download` returns."
    )
    if "images" not in code:
        return f"{text} No other library has this network."
    versions = ", ".join(f"{name} {number}" for name, number in weights.TESTED.items())
    return (
        f"{text} Run *images* before those below it. sp_jax tests them with {versions}."
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first row is the head."""
    first, *rest = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [first, ["---"] * len(first), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
