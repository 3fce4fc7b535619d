"""Evaluators on the command line."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

import eval as evaluators
from eval.evaluator import Number
from eval.options import defaults_of, forms_of
from eval.results import default_name, identify, run_folder, write_result
from sp_jax import cli, xla_flags
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.json_file import read_json, to_json
from sp_jax.train.folders import explain_no_run

flags.disclaim_key_flags()  # they are the program's: its --help lists them
_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def main(name: str, module: Any) -> None:
    """Evaluate a checkpoint from the command line; does not return.

    The flags are the fields of `module.Options`. Prints the protocol and the headline; all
    numbers are written to `eval/NAME.json` in the run's folder, see `eval.results`.
    A `UserError` is printed as one line and ends the program with code 2.

    Args:
      name: of the evaluator; the default name of the result begins with it.
      module: an evaluator module: `Options` and `create`.
    """
    flags.DEFINE_string(
        "checkpoint", None, "Run folder, checkpoint or file of weights.", required=True
    )
    text = "Name of the result file, eval/NAME.json; the default is "
    flags.DEFINE_string("name", None, f"{text}{name}_DATASET_TARGET.")
    flags.DEFINE_bool(
        "untrained",
        False,
        "Evaluate the same network and seed before training, into eval/untrained/.",
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of eval/NAME.json; default: the run's, or FILE.results.",
    )
    define_flags(module.Options)
    xla_flags.set_cpu_flags()
    cli.run(lambda: _evaluate(name, module))


def define_flags(kind: type) -> None:
    """Define a flag for each field of an evaluator's `Options`."""
    # Fields are explained where they are declared.
    explained = "\n".join(parent.__doc__ or "" for parent in kind.__mro__)
    defaults = defaults_of(kind)
    for name, form in forms_of(kind).items():
        line = re.search(rf"^ *{name}: (.+)$", explained, re.MULTILINE)
        text, default = line[1] if line else "", defaults.get(name)
        if isinstance(default, tuple):
            default = [str(one) for one in default]  # with commas between
        define = flags.DEFINE_list if form.several else _DEFINE[form.type]
        define(name, default, text, required=name not in defaults)


def images_of(checkpoint: str) -> dict[str, Any]:
    """How the images of the run were prepared; images to evaluate are prepared likewise.

    For a file of weights it is the size in the file, or the one that its network is for.

    Raises:
      UserError: there is no such checkpoint, or the run's config.json is damaged.
    """
    from sp_jax import weights

    if weights.find_file(checkpoint):
        return weights.load(checkpoint).info["images"]
    if not os.path.exists(checkpoint):  # now, before images are prepared
        raise UserError(explain_no_run(checkpoint))
    config = run_folder(checkpoint) / "config.json"
    if not config.is_file():  # A checkpoint without its run.
        return {}
    data = read_json(config).get("data", {})
    if not isinstance(data, dict):
        raise UserError(f"{config} is damaged: its data is not an object.")
    return {name: data[name] for name in ("image_size", "resize") if name in data}


def read_flags(kind: type, checkpoint: str) -> dict[str, Any]:
    """The options that the flags give an evaluator of a checkpoint.

    Images are prepared as those of the checkpoint's run, unless a flag says otherwise.

    Args:
      kind: the evaluator's `Options`, whose flags are defined.
      checkpoint: a run's folder, a checkpoint in it, or a file of weights.

    Raises:
      UserError: an element of a list has the wrong type, or a file cannot be used.
    """
    values, options = flags.FLAGS, {}
    of_run = images_of(checkpoint)
    for option, form in forms_of(kind).items():
        value = values[option].value
        if isinstance(value, list):
            try:
                value = tuple(map(form.type, value))
            except ValueError:
                raise UserError(
                    f"--{option} must be {form.type.__name__}s, separated by commas, "
                    f"not {','.join(value)!r}."
                ) from None
        if option in of_run and not values[option].present:
            value = of_run[option]
        options[option] = value
    return options


def describe(result: Mapping[str, float], headline: Sequence[Number]) -> str:
    """The headline numbers, one per line; the file of the result has all of them."""
    width, lines = max((len(number.name) for number in headline), default=0), []
    for number in headline:
        line = f"  {number.name.replace('_', ' '):{width}}  {result[number.name]:.4f}"
        if number.chance is not None:
            line += f"  (chance {number.chance:.4f})"
        lines.append(line)
    return "\n".join(lines)


def _evaluate(name: str, module: Any) -> None:
    values = flags.FLAGS
    options = read_flags(module.Options, values.checkpoint)
    evaluate = evaluators.make(module, options)
    # Imported late: the library of evaluators needs no trainer, and mistakes in the
    # options show without loading it.
    import sp_jax

    backbone = sp_jax.load(values.checkpoint, untrained=values.untrained)
    step = backbone.info["step"]
    extractor = Extractor(backbone)
    about = identify(evaluate, extractor, step)
    result = evaluate(extractor, step)
    # Printed first, so that it is not lost if the folder cannot be written.
    print(f"{evaluate.protocol}, step {step}")
    print(describe(result, evaluate.headline), flush=True)
    folder = values.workdir or run_folder(values.checkpoint)
    name = values.name or default_name(name, options)
    try:
        path = write_result(folder, name, result, untrained=values.untrained, **about)
    except Exception:
        print(f"All numbers: {json.dumps(to_json(result), allow_nan=False)}")
        raise
    if backbone.info.get("guessed"):
        from sp_jax import weights

        print(weights.describe(backbone))
    print(f"written to {path}")
