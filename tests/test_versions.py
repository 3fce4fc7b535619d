"""The code's version and its commit."""

import re
import shutil
import subprocess

import pytest

from sp_jax import versions


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A project of git with one commit, in the place of this one; its commit."""
    if not shutil.which("git"):
        pytest.skip("there is no git")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.0.7"\n')

    def git(*words):
        own = (
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "commit.gpgsign=false",
        )
        done = subprocess.run(
            ["git", *own, *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    for words in (["init"], ["add", "."], ["commit", "-m", "One."], ["tag", "v9"]):
        git(*words)
    monkeypatch.setattr(versions, "_ROOT", tmp_path)

    def missing(name):
        raise versions.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(versions.importlib.metadata, "version", missing)
    return git("rev-parse", "HEAD")


def test_a_checkout_tells_its_commit_and_whether_it_is_changed(checkout, tmp_path):
    said = versions._code()
    assert re.fullmatch(r"0\.0\.7, commit [0-9a-f]{7,}", said)
    assert checkout.startswith(said.split()[-1])
    (tmp_path / "notes.txt").write_text("Git does not know it.")
    assert versions._code() == said
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.0.8"\n')
    assert versions._code() == said.replace("7,", "8,", 1) + ", changed"


def test_without_git_the_version_is_said(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions._code() == "0.0.7"
    shutil.rmtree(tmp_path / ".git")
    assert versions._code() == "0.0.7"
    (tmp_path / "pyproject.toml").unlink()
    assert versions._code() == "not known"
