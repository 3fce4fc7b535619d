"""Tests of reading JSON files that may be damaged."""

import re

import pytest

from sp_jax.errors import UserError
from sp_jax.json_file import read_json

DAMAGED = {
    "empty": b"",
    "cut short": b'{"a": [1, 2',
    "a list": b"[]",
    "null": b"null",
    "a number": b"5",
    "no text": b"\xff\xfe\x00\x80",
    "a number of 5000 digits": b"9" * 5000,
    "brackets": b"[" * 200_000,
}


def test_reads_an_object(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"name": "Löwe", "steps": [1, 2]}', encoding="utf-8")
    assert read_json(path) == {"name": "Löwe", "steps": [1, 2]}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_names_a_damaged_file(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} is damaged: "):
        read_json(path)


def test_names_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*lost\.json"):
        read_json(tmp_path / "lost.json")
    with pytest.raises(UserError, match=r"Cannot read .*: Is a directory"):
        read_json(tmp_path)
