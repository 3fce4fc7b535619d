"""The page on which a person decides on pairs: the server's answers to requests."""

import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import flask
import numpy as np
from werkzeug.exceptions import HTTPException

from input_pipeline import pairs
from input_pipeline.curation.decisions import Curation
from input_pipeline.curation.likeness import Likeness
from input_pipeline.curation.order import Order
from input_pipeline.curation.pictures import LARGE, SMALL
from input_pipeline.curation.views import Views
from sp_jax.errors import UserError

_MOST = 48  # Pairs of a sheet.
_MEANWHILE = "Decided in another window in the meantime. Please look again."
_BODY = 64 * 1024  # Bytes of a request, at most; a sheet sends numbers alone.
# No other site may show the page in a frame, nor its pictures.
_HEADERS = {
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def make_app(
    curation: Curation,
    picture: Callable[[int, int], bytes],
    export: pathlib.Path,
    *,
    order: Order | None = None,
    likeness: Likeness | None = None,
    wanted: int | None = None,
    opinions: Mapping[int, str] | None = None,
    suspects: np.ndarray | None = None,
) -> flask.Flask:
    """The page of a curation.

    Args:
      curation: the pairs.
      picture: makes a PNG file of a row and the largest side in pixels.
      export: a file for the accepted pairs.
      order: of the pairs; by default as in the table.
      likeness: of the images; by default by shapes and colours.
      wanted: accepted pairs of each class.
      opinions: what others say about a pair, in words.
      suspects: int [N], the class to which an image may belong instead; -1: none.
    """
    app = flask.Flask(__name__, template_folder=str(pathlib.Path(__file__).parents[1]))
    # A page of another site must not reach this one by a name that resolves to here.
    app.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost"]
    app.config["MAX_CONTENT_LENGTH"] = _BODY
    lock = threading.Lock()
    order = order or Order(curation, wanted=wanted)
    likeness = likeness or Likeness(curation.store, curation.groups, None)
    views = Views(curation, order, likeness, opinions or {}, suspects)

    def number(name: str, default: int) -> int:
        return flask.request.args.get(name, default, type=int)

    def count() -> int:
        return min(max(number("count", 1), 1), _MOST)

    @app.before_request
    def check() -> None:
        """Any page can post a form here; only ours can post JSON."""
        request = flask.request
        if request.method == "POST":
            site = request.headers.get("Origin", request.host).rpartition("//")[2]
            if request.mimetype != "application/json" or site != request.host:
                flask.abort(403, "This page takes decisions only from its own window.")
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

    @app.get("/facts")
    def facts() -> dict[str, Any]:
        """Facts that do not change while the page is open."""
        return {
            "pairs": len(curation.table),
            "making": curation.making,
            "wanted": wanted,
        }

    @app.get("/sheet")
    def sheet() -> dict[str, Any]:
        """The next pairs to decide, without those on the page."""
        words = flask.request.args.get("without", "").split(",")
        shown = [int(w) for w in words if w.isdecimal() and len(w) < 12]
        if shown and max(shown) >= len(curation.table):
            flask.abort(404)
        with lock:
            return views.sheet(order.next(count(), number("after", -1), shown))

    @app.get("/around/<int(signed=True):place>")
    def around(place: int) -> dict[str, Any]:
        """Pairs from a place on, or up to it, decided or not."""
        with lock:
            return views.sheet(order.around(place, count(), bool(number("back", 0))))

    @app.get("/class/<int:which>")
    def of_class(which: int) -> dict[str, Any]:
        """The next pairs of a class to decide, or its first ones."""
        with lock:
            start = order.class_start(which)
            found = order.next(count(), start - 1)
            if not found or order.counts(found[0])["of_class"]["class"] != which:
                found = order.around(start, count())
            return views.sheet(found)

    @app.get("/classes")
    def classes() -> dict[str, Any]:
        search = flask.request.args.get("search", "")
        with lock:
            return order.classes(number("near", 0), search, bool(number("short", 0)))

    @app.get("/partners/<int:pair>")
    def partners(pair: int) -> dict[str, Any]:
        if pair >= len(curation.table):
            flask.abort(404)
        with lock:
            allowed = curation.partners(pair)
        # Without the lock: for a new class it may take a second.
        return {"partners": views.partners(pair, allowed, count())}

    @app.get("/image/<store>/<int:row>")
    def image(store: str, row: int) -> flask.Response:
        if store != views.store or row >= len(curation.store):
            flask.abort(404)
        try:
            content = picture(row, SMALL if number("small", 0) else LARGE)
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
        """Save the decisions of a sheet, and answer with the next sheet or the same one."""
        asked = flask.request.get_json()
        steps = asked.get("decisions")
        if type(steps) is not list or not steps:
            flask.abort(400, "decisions must be a list.")
        for step in steps:
            if not (
                isinstance(step, dict)
                and type(step.get("pair")) is int
                and type(step.get("action")) is str
                and type(step.get("second", 0)) is int
                and type(step.get("status", "")) is str
            ):
                flask.abort(
                    400, "A decision needs a whole number as pair, and an action."
                )
        numbers = [step["pair"] for step in steps]
        with lock:
            # The page may have been left open while another set came to this port.
            current = asked.get("store") == views.store and all(
                0 <= pair < len(curation.table) for pair in numbers
            )
            if not current or any(
                step.get("images") != views.rows(step["pair"]) for step in steps
            ):
                raise UserError("The page shows an old pair: load the page again.")
            if any(
                step.get("status") not in (None, views.status(step["pair"]))
                for step in steps
            ):
                return views.sheet(numbers) | {"news": _MEANWHILE}
            curation.decide(*_decisions(steps))
            if asked.get("stay"):
                return views.sheet(numbers)
            after = max(int(order.place[pair]) for pair in numbers)
            return views.sheet(order.next(count(), after))

    @app.post("/undo")
    def undo() -> dict[str, Any]:
        with lock:
            had = curation.undo()
            if not had:
                raise UserError("There is nothing to undo.")
            return views.sheet(sorted(had, key=order.place.__getitem__), had)

    @app.post("/export")
    def write() -> dict[str, Any]:
        with lock:
            table, columns = curation.accepted()
            try:
                pairs.save_table(export, table, curation.store, more=columns)
            except OSError as error:
                raise UserError(
                    f"{export} cannot be written ({error}): make room, or move away the "
                    "file that is there, and export again."
                ) from error
        return {"message": f"{len(table)} accepted pairs are in {export}."}

    return app


def _decisions(steps: list[dict[str, Any]]) -> list[tuple]:
    """The arguments for `Curation.decide`; "choose" accepts a new partner."""
    found = []
    for step in steps:
        pair, action = step["pair"], step["action"]
        if action in ("swap", "choose"):
            found.append((pair, "swap", step.get("second", -1)))
        if action != "swap":
            found.append((pair, "accept" if action == "choose" else action))
    return found
