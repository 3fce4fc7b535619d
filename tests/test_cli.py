"""An error of the system is one sentence and an exit code, in every program."""

import errno
import re

import pytest

from sp_jax import cli, config, program, xla_flags
from sp_jax.errors import UserError


@pytest.mark.parametrize(
    "error, code, words",
    [
        (UserError("Give a store."), 2, "Give a store."),
        (
            OSError(errno.ENOSPC, "No space left", "/a/b"),
            2,
            "'/a/b' .* free some space",
        ),
        (OSError(errno.EDQUOT, "Quota exceeded", "/a"), 2, "quota"),
        (OSError(errno.EFBIG, "File too large"), 2, r"ulimit -f"),
        (OSError(errno.EMFILE, "Too many open files", "/a"), 2, r"ulimit -n"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 2, "'/a' .*permiss"),
        (OSError(errno.EROFS, "Read-only file system", b"/a"), 2, "read-only"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a"), 2, "no such file"),
        (OSError("something else"), 2, "something else"),
        (MemoryError(), 2, "This machine .* enough memory"),
        (RuntimeError("can't start new thread"), 2, "ulimit -u"),
        (KeyboardInterrupt(), 130, "Ctrl-C"),
    ],
)
def test_one_sentence(capsys, error, code, words):
    def program():
        raise error

    assert cli.guard(program) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line), line


def test_memory_of_the_device(capsys):
    jaxs = type("XlaRuntimeError", (RuntimeError,), {})

    def program():
        raise jaxs(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."
        )

    assert cli.guard(program) == 2
    assert "--config.model.remat=True" in capsys.readouterr().err


def test_a_fault_of_the_program_passes():
    with pytest.raises(ZeroDivisionError):
        cli.guard(lambda: 1 / 0)
    assert cli.guard(lambda: None) == 0
    assert cli.guard(lambda: 3) == 3


@pytest.mark.parametrize(
    "word", ["--out=gs://b/x", "s3://b", "--store=folder:hdfs://b", "--a=x,gs://b"]
)
def test_paths_of_buckets_are_refused(word):
    with pytest.raises(UserError, match="folders of this machine"):
        cli.check_paths(["--seed=1", word])
    cli.check_paths(["--coordinator=host:8000", "--store=folder:/a//b"])


def test_the_users_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    argv = [
        "program",
        "--out=~/a",
        "--store=folder:~/b",
        "--checkpoint=~/c,~",
        "--x=a~/b",
    ]
    assert cli.read_paths(argv) == [
        "program",
        "--out=/home/me/a",
        "--store=folder:/home/me/b",
        "--checkpoint=/home/me/c,/home/me",
        "--x=a~/b",
    ]


@pytest.mark.parametrize(
    "text, words",
    [
        ("def get_config(:", r"cannot be used: .*line 1"),
        (
            "def get_config():\n    raise RuntimeError('boom')",
            r"RuntimeError: boom .*line 2",
        ),
        ("def get_config():\n    return None", "returns None"),
        ("def get_config():\n    return {}", "must return a ConfigDict"),
        ("x = 1", "has no function get_config"),
        ("import there_is_none", "No module named"),
    ],
)
def test_a_config_file_with_a_mistake(tmp_path, text, words):
    path = tmp_path / "mistake.py"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        config.load_config(str(path))
    assert "mistake.py" in str(error.value)


@pytest.mark.parametrize(
    "word, said",
    [
        ("optimiser.learning_rate=1", "no config.optimiser: did you mean config.optim"),
        ("evals.knn.type=knn", "as in --config.evals.knn=\"{'type': …}\""),
        ("epochs.x=1", "config.epochs is a value: it has no key 'x'"),
        ("optimizer=adam", "a section and takes no value such as 'adam': set one of"),
    ],
)
def test_keys_that_the_command_line_cannot_set(word, said):
    words = ["program", "--config=configs/simclr_resnet50.py", f"--config.{word}"]
    with pytest.raises(UserError, match=re.escape(said)):
        program._check_config(words, "config", "FILE")


def test_variants_of_config_files():
    assert config.load_config("configs/quickstart.py").method == "simclr"
    with pytest.raises(
        UserError, match="quickstart.py has no variants: leave ':quick'"
    ):
        config.load_config("configs/quickstart.py:quick")
    with pytest.raises(UserError, match="no variant 'quik'"):
        config.load_config("configs/tiny_imagenet.py:quik")


def test_an_idle_gpu_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(xla_flags, "DEVICES", tmp_path)
    monkeypatch.delenv("JAX_PLATFORMS")
    xla_flags.warn_of_idle_gpu()
    (tmp_path / "nvidia0").touch()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # the CPU is meant
    xla_flags.warn_of_idle_gpu()
    assert not caplog.records
    monkeypatch.delenv("JAX_PLATFORMS")
    xla_flags.warn_of_idle_gpu()
    assert "requirements-cuda.txt" in caplog.text
