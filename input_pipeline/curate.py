r"""Check pairs, or make some, on a page in the browser that shows a sheet at a time.

    python -m input_pipeline.curate --store=folder:/data/images --pairs=mined.csv

serves sheets of 12 to 24 pairs of a class at http://127.0.0.1:8000, which only this machine can
reach. Press the letters of the pairs that are wrong; Enter saves the sheet and shows the next
one, Backspace takes it back. Decisions are written to PAIRS.decisions.csv before the next sheet
is shown, and the same command continues there. The button Export writes the accepted pairs to
PAIRS.curated.csv, a table to train with.

    python -m input_pipeline.curate --store=folder:/data/images --pairs_per_class=157

makes pairs: for each image, it shows the most similar images of its class to choose one from.
The pairs are written to pairs.curated.csv (--out).

    python -m input_pipeline.curate --store=… --pairs=mined.csv --person=ann
    python -m input_pipeline.curate --store=… --pairs=mined.csv --person=bob
    python -m input_pipeline.curate --store=… --pairs=mined.csv \
        --merge=mined.ann.decisions.csv,mined.bob.decisions.csv

Two people decide, each in their own file. The last command reports how far they agree, and
shows the pairs on which they differ.
"""

import contextlib
import logging
import os
import pathlib
import re
import socket
from typing import Any

import filelock
import numpy as np
from absl import flags

from input_pipeline import pairs
from input_pipeline.curation import marks, merging
from input_pipeline.curation.decisions import UNDECIDED, Curation, State
from input_pipeline.curation.likeness import Likeness, load_features, pair_cosines
from input_pipeline.curation.order import Order
from input_pipeline.curation.page import make_app
from input_pipeline.curation.pictures import original_pictures
from input_pipeline.pairs import summary
from input_pipeline.stores import ImageStore
from input_pipeline.stores import flags as given
from sp_jax import cli, progress
from sp_jax.errors import UserError

flags.adopt_module_key_flags(given)  # --help lists them
_PAIRS = flags.DEFINE_string(
    "pairs", None, "CSV of pairs to check; without it pairs are made."
)
_OUT = flags.DEFINE_string(
    "out", None, "CSV for the accepted pairs; default PAIRS.curated.csv."
)
_PORT = flags.DEFINE_integer(
    "port", 8000, "Port on 127.0.0.1; 0 for a free one.", 0, 65535
)
_WANTED = flags.DEFINE_integer(
    "pairs_per_class", None, "Accepted pairs per class; then the class is done.", 1
)
_PERSON = flags.DEFINE_string(
    "person", "", "Name of who decides; each person has a file."
)
_MERGE = flags.DEFINE_list("merge", [], "Files of decisions of several people.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run or checkpoint: the encoder that compares images."
)
_FEATURES = flags.DEFINE_string(
    "features", None, "Features from another program: FILE.npy."
)
_SORTED = flags.DEFINE_bool(
    "sorted", True, "With an encoder: show the most similar pairs of a class first."
)
_WITHIN = flags.DEFINE_string(
    "within", "label", "What partners share: label, an attribute, or all for no limit."
)
_USES = flags.DEFINE_integer(
    "max_uses", 1, "Largest number of pairs of an image that is a chosen partner.", 1
)


def curate() -> None:
    """Serve the page until it is interrupted."""
    making = _PAIRS.value is None
    path = pathlib.Path(_PAIRS.value or _OUT.value or "pairs.csv").expanduser()
    if not re.fullmatch(r"[\w-]*", _PERSON.value):
        raise UserError(
            f"--person={_PERSON.value} may have letters, digits, - and _ only."
        )
    if _PERSON.value == "merged":
        raise UserError(
            "--person=merged is the name for merged decisions: choose another."
        )
    if _MERGE.value and (making or len(_MERGE.value) < 2):
        raise UserError("--merge needs --pairs and the files of two people or more.")
    who = "merged" if _MERGE.value else _PERSON.value
    stem = f"{path.stem}.{who}" if who else path.stem
    export = path.with_name(f"{stem}.curated.csv")
    if _OUT.value:
        export = summary.csv_path(_OUT.value)
    listening = _listen()
    with progress.show("opening the images"):
        store = given.open_from_flags()
        rows = np.arange(len(store))
        if making:
            table = pairs.PairTable.of(store, rows, rows, "partners chosen by a person")
        else:
            table = pairs.load_table(path, store)
    log = path.with_name(f"{stem}.decisions.csv")
    read = [log, *map(pathlib.Path, _MERGE.value), *([] if making else [path])]
    if export.resolve() in [file.resolve() for file in read]:
        raise UserError(
            f"--out={export} would replace the pairs or the decisions on them: choose "
            "another name."
        )
    try:
        lock = filelock.FileLock(f"{log}.lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{path} is being curated already: stop that program first."
        ) from None
    except OSError as error:
        raise UserError(
            f"Cannot write beside {path} ({error}): copy the pairs into a folder that can "
            "be written."
        ) from error
    with lock:
        with progress.show("opening the page"):
            app = _open_page(table, log, export, _merged(path, table, store), store)
        _serve(app, listening, f"{len(table)} {'images' if making else 'pairs'}")
        print(f"\nStopped. The decisions are in {log}; the same command continues.")


def _merged(
    path: pathlib.Path, table: pairs.PairTable, store: ImageStore
) -> tuple[State | None, dict[int, str] | None, str]:
    """The decisions that the people of --merge share, their conflicts, and their names."""
    people = []
    for name in _MERGE.value:
        file = pathlib.Path(name)
        if not file.is_file():
            raise UserError(f"--merge: there is no file {name}.")
        person = file.name.removesuffix(".decisions.csv").removeprefix(f"{path.stem}.")
        if person in [other.person for other in people]:
            raise UserError(
                f"--merge has two files of {person}: give one file for each person, and "
                "put the person into the file's name."
            )
        people.append(Curation(table, store, file, person=person, only_read=True))
    if not people:
        return None, None, ""
    people.sort(key=lambda one: one.person)
    progress.say("\n".join(merging.agreement(people)))
    return *merging.merge(people), " and ".join(one.person for one in people)


def _open_page(
    table: pairs.PairTable,
    log: pathlib.Path,
    export: pathlib.Path,
    merged: tuple[State | None, dict[int, str] | None, str],
    store: ImageStore,
) -> Any:
    """The page, with the earlier decisions."""
    making = _PAIRS.value is None
    groups, within = store.labels, _WITHIN.value
    together = within == "all" or making and within == "label" and groups.max() < 0
    if together:
        groups = np.zeros(len(store), np.int32)
    elif within != "label":
        groups = store.target(within)[0]
    state, opinions, people = merged
    curation = Curation(
        table,
        store,
        log,
        person=_PERSON.value,
        making=making,
        groups=groups,
        max_uses=_USES.value,
        given=state,
        given_by=people,
    )
    if opinions is not None:
        left = (curation.state.status[list(opinions)] == UNDECIDED).sum()
        progress.say(f"Pairs to settle: {left}.")
    if curation.dropped:
        progress.say(
            f"The last line of {log} was cut off ({curation.dropped!r}) and is removed: "
            "that pair has to be decided again."
        )
    encoder = _CHECKPOINT.value, _FEATURES.value
    features, score, suspects = None, None, None
    if any(encoder) or together:
        features = load_features(store, *encoder, log.parent)
    if any(encoder) and not making and _SORTED.value:
        score = pair_cosines(features, table.first, table.second)
    if any(encoder) and store.labels.max() > 0:
        suspects = marks.suspects(features, store.labels)
    asked = np.flatnonzero(groups >= 0) if making else opinions
    return make_app(
        curation,
        original_pictures(store),
        export,
        order=Order(curation, score=score, wanted=_WANTED.value, only=asked),
        likeness=Likeness(store, groups, features),
        wanted=_WANTED.value,
        opinions=opinions,
        suspects=suspects,
    )


def _listen() -> socket.socket:
    """Open the port of the page; before long work, as it may be in use."""
    try:
        return socket.create_server(("127.0.0.1", _PORT.value))
    except OSError as error:
        raise UserError(
            f"Port {_PORT.value} cannot be used ({os.strerror(error.errno)}): choose "
            "another --port, or end the program that uses it."
        ) from error


def _serve(app: Any, listening: socket.socket, what: str) -> None:
    """Serve the page until Ctrl-C."""
    from werkzeug import serving  # late: its extra is asked for first

    # Keeps connections: a sheet has up to 48 pictures.
    serving.WSGIRequestHandler.protocol_version = "HTTP/1.1"
    server = serving.make_server(
        "127.0.0.1", 0, app, threaded=True, fd=listening.fileno()
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # Not every request.
    with contextlib.suppress(KeyboardInterrupt):
        page = f"http://127.0.0.1:{server.port}"
        print(f"{what}: open {page} (Ctrl-C stops)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    cli.run(curate)
