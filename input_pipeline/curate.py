"""Look at pairs one by one, and keep the good ones: a page in the browser.

    python -m input_pipeline.curate --store=folder:/data/images --pairs=mined.csv

opens http://127.0.0.1:8000, which this machine alone can reach. Keys: A accept, R reject,
S another partner, U undo, arrows to look around, N the next undecided pair, E export.

Decisions are in PAIRS.decisions.csv from the moment they are made; the same command goes on
where it was. E writes the accepted pairs to PAIRS.curated.csv, a table to train with.
"""

import contextlib
import logging
import os
import pathlib
import socket

import filelock
from absl import flags

from input_pipeline import pairs
from input_pipeline.curation.decisions import Curation
from input_pipeline.curation.page import make_app, original_pictures
from input_pipeline.stores import flags as given
from sp_jax import cli
from sp_jax.errors import UserError

flags.adopt_module_key_flags(given)  # --help lists them
_PAIRS = flags.DEFINE_string("pairs", None, "CSV of pairs to look at.", required=True)
_PORT = flags.DEFINE_integer(
    "port", 8000, "Port on 127.0.0.1; 0 for a free one.", 0, 65535
)


def curate() -> None:
    """Serve the page until it is interrupted."""
    from werkzeug import serving  # late: its extra is asked for first

    path = pathlib.Path(_PAIRS.value).expanduser()
    store = given.open_from_flags()
    table = pairs.load_table(path, store)
    log = path.with_name(f"{path.stem}.decisions.csv")
    try:
        lock = filelock.FileLock(f"{log}.lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{path} is being curated already: close that page's program first."
        ) from None
    except OSError as error:
        raise UserError(
            f"Cannot write beside {path} ({error}): copy the pairs into a folder that can "
            "be written."
        ) from error
    with lock:
        curation = Curation(table, store, log)
        if curation.dropped:
            print(
                f"The last line of {log} was cut off ({curation.dropped!r}) and is taken "
                "out: that pair is asked for again."
            )
        export = path.with_name(f"{path.stem}.curated.csv")
        app = make_app(curation, original_pictures(store), export)
        try:
            listening = socket.create_server(("127.0.0.1", _PORT.value))
        except OSError as error:
            raise UserError(
                f"Port {_PORT.value} cannot be used ({os.strerror(error.errno)}): choose "
                "another --port, or end the program that has it."
            ) from error
        server = serving.make_server(
            "127.0.0.1", 0, app, threaded=True, fd=listening.fileno()
        )
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # Not every request.
        with contextlib.suppress(KeyboardInterrupt):
            page = f"http://127.0.0.1:{server.port}"
            print(f"{len(table)} pairs: open {page} (Ctrl-C ends)", flush=True)
            server.serve_forever()
        print(f"\nStopped. The decisions are in {log}; the same command goes on.")


if __name__ == "__main__":
    cli.run(curate)
