"""Changes of a study by the command line: its page names them, and has its own folder."""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from eval.study.plan import Study, given_in
from sp_jax.config import flatten, load_config
from sp_jax.errors import UserError

# Changes that make the runs differ from the paper's; others concern what is shown, seeds, or
# the place of images.
_OF_RUNS = re.compile(r"study\.(changes|arms|evaluations)\.")


def find_changes(
    config: ConfigDict, file: str, arms: Sequence[str] = ()
) -> dict[str, Any]:
    """Each flag that changed the study of its file, and its value.

    Args:
        config: the study's, after all flags.
        file: FILE or FILE:VARIANT of the study.
        arms: the only arms that are made; empty for all.
    """
    now = flatten(config.to_dict())
    before = flatten(load_config(file).to_dict())
    names = [name for name in now if name not in before or now[name] != before[name]]
    found = {f"study.{name}": now[name] for name in names}
    found |= {f"study.{name}": None for name in before if name not in now}
    return found | ({"arms": ",".join(sorted(arms))} if arms else {})


def check_reach(study: Study, changes: Mapping[str, Any]) -> None:
    """Raise UserError if a change of all arms would not reach those that set it themselves.

    It may be given for these arms, too.
    """
    for name in changes:
        key = name.removeprefix("study.changes.")
        arms = [
            arm
            for arm, one in study["arms"].items()
            if key in given_in(one["changes"])
            and f"study.arms.{arm}.changes.{key}" not in changes
        ]
        if key != name and arms:
            raise UserError(
                f"--{name} does not change {', '.join(arms)}, which set it themselves: give "
                f"--study.arms.NAME.changes.{key} for these, too."
            )


def name_page(file: str, changes: Mapping[str, Any]) -> str:
    """The name of a page's folder: study, variant, and a digest of the changes."""
    stem = re.sub(r"\W+", "_", pathlib.Path(file).name.replace(".py", ""))
    if not changes:
        return stem
    text = json.dumps(sorted(changes.items()), default=str)
    return f"{stem}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def place_in_frame(
    study: Study, file: str, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """The study without numbers that do not fit its runs, and a warning.

    The paper's numbers belong to the full study. Numbers in a variant's file stay, but not
    beside runs that the command line changed.

    Returns:
        The study, and one sentence or two, or "".
    """
    texts = [study["title"], study["about"]]
    texts += [claim["text"] for claim in study["claims"].values()]
    numbers = bool(study["paper"]) or any(
        claim["paper"] is not None for claim in study["claims"].values()
    )
    if not numbers and "paper" not in " ".join(texts):
        return dict(study), ""
    _, _, variant = file.partition(":")
    others = [f"the variant :{variant}"] if variant else []
    own = any(map(_OF_RUNS.match, changes))
    others += ["the changes by the command line"] if own else []
    if not others:
        stores = [name for name in changes if name.startswith("study.stores.")]
        if not numbers or not stores:
            return dict(study), ""
        return dict(study), (
            f"The paper's numbers are for its own images: {', '.join(stores)} must name them."
        )
    said = (
        "The text describes the paper's study, but these runs differ from it: "
        f"{' and '.join(others)}."
    )
    if not (own and numbers):
        return dict(study), said
    claims = {name: {**claim, "paper": None} for name, claim in study["claims"].items()}
    without = {**study, "paper": {}, "claims": claims}
    return without, f"{said} So the paper's numbers are left out."
