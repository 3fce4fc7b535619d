"""The requests of the curation page."""

import json

import pytest

from input_pipeline import pairs
from input_pipeline.curation import page as curate_page
from input_pipeline.curation.decisions import ACCEPTED, Curation
from input_pipeline.curation.pictures import original_pictures
from input_pipeline.pairs import pairing


def client_of(curation, picture=None, export=None, **options):
    picture = picture or (lambda row, side: b"")
    return curate_page.make_app(curation, picture, export, **options).test_client()


def test_the_requests(folder):
    path, store, table = folder
    curation = Curation(table, store, path / "log.csv", person="ann")
    export = path / "out.csv"
    client = client_of(curation, original_pictures(store), export)
    mark = client.get("/sheet?count=1").json["store"]

    def post(where, **body):
        return client.post(where, json=body)

    def decide(view, *actions, count=12, **more):
        steps = [
            {"pair": p["pair"], "images": [i["row"] for i in p["images"]]} | action
            for p, action in zip(view["pairs"], actions, strict=False)
        ]
        return post(f"/decide?count={count}", store=mark, decisions=steps, **more).json

    accept, reject = {"action": "accept"}, {"action": "reject"}
    assert b"/static/main.js" in client.get("/").data
    assert client.get("/static/main.js").mimetype == "text/javascript"
    assert client.get("/facts").json == {"pairs": 4, "making": False, "wanted": None}
    view = client.get("/sheet?count=12").json
    assert [pair["pair"] for pair in view["pairs"]] == [0, 1]  # Of one class.
    cat = {"class": 0, "name": "cat", "accepted": 0, "possible": 2, "total": 2}
    assert (view["label"], view["of_class"]) == ("cat", cat)
    shown = [image["url"] for image in view["pairs"][0]["images"]]
    assert shown == [
        f"/image/{mark}/{row}" for row in (table.first[0], table.second[0])
    ]
    image = client.get(shown[0])
    assert image.mimetype == "image/png" and image.cache_control.max_age == 3600
    for wrong in (f"/image/{mark}/999", f"/image/{'0' * 12}/0", "/partners/4"):
        assert client.get(wrong).status_code == 404
    assert "No pair has been accepted" in post("/export").json["error"]
    assert "nothing to undo" in post("/undo").json["error"]
    # Another partner is shown before it is decided on.
    partners = client.get("/partners/0?count=12").json["partners"]
    swapped = partners[0]["row"]
    assert len(partners) == 1 and store.labels[swapped] == store.labels[0]
    second = {"action": "swap", "second": swapped}
    fresh = decide(view, second, stay=True)
    assert [i["row"] for i in fresh["pairs"][0]["images"]][1] == swapped
    # A page that was left open shows something else by now.
    assert "load the page again" in decide(view, accept)["error"]
    assert "cannot be the partner" in decide(fresh, second | {"second": 9})["error"]
    view = client.get("/sheet?count=12").json
    assert client.get("/sheet?count=9&after=1&without=0,1").json["label"] == "dog <b>"
    assert decide(view, accept, reject)["label"] == "dog <b>"
    undone = post("/undo").json
    assert [pair["had"] for pair in undone["pairs"]] == ["accepted", "rejected"]
    view = decide(undone, accept, reject)
    view = decide(view, accept, count=1)
    assert [pair["pair"] for pair in view["pairs"]] == [3]
    # Another window shows it as it was before.
    stale = decide(view, accept | {"status": "accepted"})
    assert "Decided in another window" in stale["news"]
    assert stale["pairs"][0]["status"] == "undecided"
    view = decide(view, reject)
    assert view["finished"] and view["decided"] == 4
    listed = client.get("/classes?search=CA").json["classes"]
    assert listed == [cat | {"accepted": 1, "possible": 1}]
    assert client.get("/class/1?count=9").json["pairs"][1]["status"] == "rejected"
    assert client.get("/around/-5?count=9").json["pairs"][0]["pair"] == 0
    export.mkdir()
    assert "out.csv cannot be written" in post("/export").json["error"]
    export.rmdir()
    assert "2 accepted pairs" in post("/export").json["message"]
    clean = pairs.load_table(export, store)
    assert clean.first.tolist() == table.first[[0, 2]].tolist()
    assert clean.second.tolist() == [swapped, table.second[2]]
    assert "curated (2 of 4 accepted)" in clean.source
    assert "label,by,time" in export.read_text() and ",ann,20" in export.read_text()
    (path / "pictures" / store.ids[table.second[0]]).unlink()
    gone = client.get(shown[1])
    assert gone.status_code == 400 and "cannot be shown" in gone.json["error"]


def test_other_sites_are_refused(make_store, tmp_path):
    store = make_store([0] * 8 + [1] * 7)
    table = pairing.class_pairs(store, 3, seed=0)
    curation = Curation(table, store, tmp_path / "decisions.csv")
    curation.decide((0, "accept"))
    client = client_of(curation, export=tmp_path / "out.csv")
    # By a name that resolves to this machine.
    other = client.get("/", headers={"Host": "evil.example"})
    assert other.status_code == 400
    for path in ("/decide", "/undo", "/export"):
        for origin in ("http://evil.example", "null", "http://localhost:1"):
            answer = client.post(path, json={}, headers={"Origin": origin})
            assert answer.status_code == 403
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            answer = client.post(path, data="{}", content_type=kind)
            assert answer.status_code == 403
        assert client.post(path).status_code == 403
    assert curation.state.status[0] == ACCEPTED and not (tmp_path / "out.csv").exists()
    answer = client.post("/undo", json={}, headers={"Origin": "http://localhost"})
    assert answer.json["pairs"][0]["pair"] == 0
    for path in ("/", "/sheet", "/static/main.js", "/nowhere"):  # Nor show the page.
        headers = client.get(path).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


STEP = {"images": [], "pair": 0, "action": "accept"}


@pytest.mark.parametrize(
    "body, code",
    [
        *((body, 400) for body in ("", "{", "[]", "7", "null", '"x"', "\xff", "NaN")),
        *((body, 400) for body in ("[" * 60_000, '{"pair": ' + "9" * 5000 + "}", "{}")),
        *(
            (json.dumps({"store": "x", "decisions": wrong}), 400)
            for wrong in (
                *(None, 1, "x", {}, [], [1], [[]], [{}]),
                *([STEP | {"pair": x}] for x in (None, "0", 0.0, True, {}, 10**30, -1)),
                *([STEP | {"action": x}] for x in (None, 1, ["accept"], {})),
                *([STEP | {"images": x}] for x in (None, 1, "x", {}, [[]])),
                [STEP | {"second": "1"}],
            )
        ),
        ('{"pair": 0, "x": "' + "x" * 70_000 + '"}', 413),
    ],
)
def test_requests_of_another_form(make_store, tmp_path, body, code):
    """Refused in words, and nothing is decided."""
    store = make_store([0] * 8)
    curation = Curation(pairing.class_pairs(store, 3, seed=0), store, tmp_path / "log")
    client = client_of(curation, export=tmp_path / "out.csv")
    kept = (tmp_path / "log").read_bytes()
    mark = client.get("/sheet?count=1").json["store"]
    content = body.replace('"x", "dec', f'"{mark}", "dec')
    for path in ("/decide", "/undo", "/export") if code == 413 else ("/decide",):
        answer = client.post(
            path, data=content.encode("latin-1"), content_type="application/json"
        )
        assert answer.status_code == code and answer.json["error"]
    assert (tmp_path / "log").read_bytes() == kept and not curation.state.status.any()


def test_a_page_of_another_person_decides_nothing_here(make_store, tmp_path):
    store = make_store([0] * 8)
    table = pairing.class_pairs(store, 3, seed=0)
    one, other = (
        Curation(table, store, tmp_path / name, person=name) for name in ("ann", "bob")
    )
    mark = client_of(one, export=tmp_path / "a.csv").get("/sheet").json["store"]
    step = {"pair": 0, "images": [int(table.first[0]), int(table.second[0])]}
    body = {"store": mark, "decisions": [step | {"action": "accept"}]}
    client = client_of(other, export=tmp_path / "b.csv")
    assert client.post("/decide", json=body).status_code != 200
    assert not other.state.status.any()
