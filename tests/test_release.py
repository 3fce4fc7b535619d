"""The facts of a release are the same in all files that name them."""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_that_of_the_newest_release():
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    unreleased, *releases = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert unreleased == "Unreleased"
    citation = dict(
        re.findall(r"^([a-z-]+): (.*)$", read("CITATION.cff"), re.MULTILINE)
    )
    assert releases[0] == f"{version} ({citation['date-released']})"
    assert citation["version"] == version


def test_a_commit_is_checked_by_what_make_lint_runs():
    name = r"([\w-]+(?: check| format)?)"
    (lint,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    hooks = read(".pre-commit-config.yaml")
    tools = re.findall(r"\$\(BIN\)/" + name, lint)
    assert tools == re.findall(r"entry: \.venv/bin/" + name, hooks)
