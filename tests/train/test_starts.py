"""The record of the starts of a run."""

from sp_jax.train.starts import note_start, read_starts


def test_a_line_a_start_and_a_line_cut_short_is_none(tmp_path):
    assert read_starts(tmp_path) == []
    note_start(tmp_path, 0)
    with open(tmp_path / "starts.jsonl", "a") as file:
        file.write('{"date": "20\n')
    note_start(tmp_path, 40)
    with open(tmp_path / "starts.jsonl", "a") as file:
        file.write('{"date": "20')
    note_start(tmp_path, 60)
    starts = read_starts(tmp_path)
    assert [start["step"] for start in starts] == [0, 40, 60]
    assert starts[0]["date"] <= starts[1]["date"]
    assert starts[0]["command"].startswith("python ")
