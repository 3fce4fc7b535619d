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
from werkzeug.exceptions import HTTPException

from input_pipeline import pairs
from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation
from input_pipeline.stores import ImageStore, decode, open_source
from sp_jax.errors import UserError

_SIDE = 640  # Pixels of an image on the page, at most.
_NEAR = 100  # Classes that are listed before the present one, and behind it.
_BODY = 64 * 1024  # Bytes of a request, at most; a page sends two names.
# No other site may show the page in a frame, nor its pictures.
_HEADERS = {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_WORDS = {ACCEPTED: "accepted", REJECTED: "rejected"}


def make_app(
    curation: Curation, picture: Callable[[int], bytes], export: pathlib.Path
) -> flask.Flask:
    """The page; `picture` makes PNG files of rows, and `export` is for the accepted pairs."""
    app = flask.Flask(__name__, template_folder=str(pathlib.Path(__file__).parents[1]))
    # A page of another site must not reach this one by a name that resolves to here.
    app.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost"]
    app.config["MAX_CONTENT_LENGTH"] = _BODY
    lock = threading.Lock()
    picture = functools.lru_cache(maxsize=256)(picture)
    # Browsers keep pictures: those of another store must have another address.
    mark = curation.store.fingerprint[:12]

    def images(pair: int) -> list[dict[str, str]]:
        rows = int(curation.table.first[pair]), int(curation.second[pair])
        ids = curation.store.ids
        return [{"url": f"/image/{mark}/{row}", "name": ids[row]} for row in rows]

    def two_classes(pair: int) -> str:
        """The names of the images' classes, if these are two."""
        rows = curation.table.first[pair], curation.second[pair]
        first, second = curation.store.labels[list(rows)]
        if min(first, second) < 0 or first == second:
            return ""
        return f"{curation.class_name(first)} / {curation.class_name(second)}"

    def view(pair: int | None) -> dict[str, Any]:
        shown = pair if pair is not None else len(curation.table) - 1
        return {
            "pair": shown,
            "finished": pair is None,
            "pairs": len(curation.table),
            "decided": int((curation.status != UNDECIDED).sum()),
            "label": curation.class_name(curation.table.label[shown]),
            "two_classes": two_classes(shown),
            "status": _WORDS.get(int(curation.status[shown]), "undecided"),
            "images": images(shown),
            "classes": _progress(curation, shown),
        }

    @app.before_request
    def check() -> None:
        """Any page can post a form here; only ours can post JSON."""
        request = flask.request
        if request.method == "POST":
            site = request.headers.get("Origin", request.host).rpartition("//")[2]
            if request.mimetype != "application/json" or site != request.host:
                flask.abort(403)
            try:
                body = request.get_json()
            except RecursionError:  # Of lists in lists in lists.
                body = None
            if not isinstance(body, dict):
                flask.abort(400, "The body must be a JSON object.")

    @app.after_request
    def protect(response: flask.Response) -> flask.Response:
        response.headers.update(_HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[dict[str, str], int]:
        return {"error": error.description}, error.code

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

    @app.get("/image/<store>/<int:row>")
    def image(store: str, row: int) -> flask.Response:
        if store != mark or row >= len(curation.store):
            flask.abort(404)
        try:
            content = picture(row)
        except Exception as error:  # Folders, archives and decoders raise many types.
            raise UserError(
                f"{curation.store.ids[row]} cannot be shown ({error}): reject the pair, or "
                "leave it undecided."
            ) from error
        response = flask.Response(content, mimetype="image/png")
        response.headers["Cache-Control"] = "max-age=3600"
        return response

    @app.post("/decide")
    def decide() -> dict[str, Any]:
        asked = flask.request.get_json()
        pair, action = asked.get("pair"), asked.get("action")
        if type(pair) is not int or type(action) is not str:
            flask.abort(400, "pair must be a whole number and action a string.")
        with lock:
            # The page may have been left open while another set came to this port.
            current = 0 <= pair < len(curation.table)
            if not current or asked.get("images") != images(pair):
                raise UserError("The page shows an old pair: load the page again.")
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
            try:
                pairs.save_table(export, table, curation.store)
            except OSError as error:
                raise UserError(
                    f"{export} cannot be written ({error}): make room, or move away what "
                    "is there, and export again."
                ) from error
        return {"message": f"{len(table)} accepted pairs are in {export}."}

    return app


def _progress(curation: Curation, pair: int) -> dict[str, Any]:
    """How far the classes near that of a pair are: all may be too many to send and draw."""
    classes, first, place = np.unique(
        curation.table.label, return_index=True, return_inverse=True
    )
    counts = {
        "first": first,
        "accepted": np.bincount(place, curation.status == ACCEPTED),
        "rejected": np.bincount(place, curation.status == REJECTED),
        "pairs": np.bincount(place),
    }
    order = np.argsort(first)
    here = int(np.flatnonzero(order == place[pair])[0])
    before = max(here - _NEAR, 0)
    near = [
        {"name": curation.class_name(classes[i])}
        | {name: int(count[i]) for name, count in counts.items()}
        for i in order[before : here + _NEAR + 1]
    ]
    return {"before": before, "near": near, "behind": len(order) - before - len(near)}


def original_pictures(store: ImageStore) -> Callable[[int], bytes]:
    """Row to a PNG of the original image, larger than what training sees."""
    if store.name.startswith("array_record:"):
        return lambda row: _png(Image.fromarray(store.read(row)))
    source = open_source(store.name)
    rows = {name: row for row, name in enumerate(source.meta()["ids"])}
    read = source.open_reader()

    def picture(row: int) -> bytes:
        content = read(rows[store.ids[row]])
        encoded = isinstance(content, bytes)
        image = decode.open_rgb(content) if encoded else Image.fromarray(content)
        image.thumbnail((_SIDE, _SIDE))
        return _png(image)

    return picture


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
