"""The page on which a person decides on pairs: requests and pictures."""

import functools
import io
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import flask
import numpy as np
from PIL import Image

from input_pipeline import decode, pairs
from input_pipeline.curation import ACCEPTED, REJECTED, Curation
from input_pipeline.errors import UserError
from input_pipeline.store import ImageStore, open_source

_SIDE = 640  # Pixels of an image on the page, at most.
_WORDS = {ACCEPTED: "accepted", REJECTED: "rejected"}


def make_app(
    curation: Curation, picture: Callable[[int], bytes], export: pathlib.Path
) -> flask.Flask:
    """The page.

    Args:
      curation: the pairs and the decisions on them.
      picture: row of the store to a PNG file.
      export: CSV file for the accepted pairs.
    """
    app = flask.Flask(__name__, template_folder=str(pathlib.Path(__file__).parent))
    # A page of another site must not reach this one by a name that resolves to here.
    app.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost"]
    lock = threading.Lock()
    picture = functools.lru_cache(maxsize=256)(picture)

    def view(pair: int | None) -> dict[str, Any]:
        table, store = curation.table, curation.store
        shown = pair if pair is not None else len(table) - 1
        label = table.label[shown]
        first, second = int(table.first[shown]), int(curation.second[shown])
        return {
            "pair": shown,
            "finished": pair is None,
            "pairs": len(table),
            "label": store.class_names[label] if label >= 0 else "",
            "status": _WORDS.get(int(curation.status[shown]), "undecided"),
            "images": [{"row": i, "name": store.ids[i]} for i in (first, second)],
            "classes": _progress(curation),
        }

    @app.errorhandler(UserError)
    def wrong(error: UserError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 400

    @app.get("/")
    def page() -> str:
        return flask.render_template("curate_page.html")

    @app.get("/pair/<int(signed=True):pair>")
    def look(pair: int) -> dict[str, Any]:
        with lock:
            return view(min(max(pair, 0), len(curation.table) - 1))

    @app.get("/undecided/<int(signed=True):after>")
    def undecided(after: int) -> dict[str, Any]:
        with lock:
            return view(curation.next_undecided(after))

    @app.get("/image/<int:row>")
    def image(row: int) -> flask.Response:
        if row >= len(curation.store):
            flask.abort(404)
        response = flask.Response(picture(row), mimetype="image/png")
        response.headers["Cache-Control"] = "max-age=3600"
        return response

    @app.post("/decide")
    def decide() -> dict[str, Any]:
        asked = flask.request.get_json()
        with lock:
            pair, action = int(asked["pair"]), str(asked["action"])
            curation.decide(pair, action)
            return view(pair if action == "swap" else curation.next_undecided(pair))

    @app.post("/undo")
    def undo() -> dict[str, Any]:
        with lock:
            pair = curation.undo()
            if pair is None:
                raise UserError("There is nothing to undo.")
            return view(pair)

    @app.post("/export")
    def write() -> dict[str, Any]:
        with lock:
            table = curation.accepted()
            pairs.save_table(export, table, curation.store)
        return {"message": f"{len(table)} accepted pairs are in {export}."}

    return app


def _progress(curation: Curation) -> list[dict[str, Any]]:
    """How far each class is, in the order of the table."""
    classes, first, place = np.unique(
        curation.table.label, return_index=True, return_inverse=True
    )
    accepted = np.bincount(place, curation.status == ACCEPTED).astype(int)
    rejected = np.bincount(place, curation.status == REJECTED).astype(int)
    pairs_of = np.bincount(place)
    names = curation.store.class_names
    return [
        {
            "name": names[classes[i]] if classes[i] >= 0 else "without a label",
            "first": int(first[i]),
            "accepted": int(accepted[i]),
            "rejected": int(rejected[i]),
            "pairs": int(pairs_of[i]),
        }
        for i in np.argsort(first)
    ]


def original_pictures(store: ImageStore) -> Callable[[int], bytes]:
    """Row to a PNG of the original image, larger than what training sees."""
    if store.name.startswith("array_record:"):
        return lambda row: _png(Image.fromarray(store.read(row)))
    source = open_source(store.name)
    rows = {name: row for row, name in enumerate(source.meta()["ids"])}
    read = source.open_reader()

    def picture(row: int) -> bytes:
        content = read(rows[store.ids[row]])
        if isinstance(content, bytes):
            image = decode.open_rgb(content)
        else:
            image = Image.fromarray(content)
        image.thumbnail((_SIDE, _SIDE))
        return _png(image)

    return picture


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
