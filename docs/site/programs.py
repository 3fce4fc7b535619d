"""All programs with their flags, as absl lists them."""

import ast
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = {
    "sp_jax": "Train and export",
    "input_pipeline": "Images and pairs",
    "eval": "Evaluate and compare",
    "benchmarks": "Measure speed, and compare with other libraries",
}
# A process for each program, forked where what most of them import is there.
_ASK = """
import os, runpy, sys, traceback
import eval.plots, input_pipeline.stores, scipy.stats, sp_jax.train.loop

flag, folder, *programs = sys.argv[1:]
for program in programs:
    if not os.fork():
        with open(f"{folder}/{program}", "w") as sys.stdout:
            sys.argv, sys.stderr = [program, flag], sys.stdout
            try:
                runpy.run_module(program, run_name="__main__", alter_sys=True)
            except SystemExit:
                pass
            except ImportError:  # a library that only tests need
                traceback.print_exc()
        os._exit(0)
    os.wait()
"""


def find_programs():
    """Names of all modules that can be started, each with its file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if '__name__ == "__main__"' in path.read_text():
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found[name.removesuffix(".__main__")] = path
    return found


def ask(flag, programs):
    """What each program prints if it is started with that flag alone."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _ASK, flag, folder, *programs]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        return {name: pathlib.Path(folder, name).read_text() for name in programs}


def read_flags(text):
    """The flags of a program's --helpxml: name, default and meaning of each."""
    flags = ET.fromstring(text[text.index("<?xml") :]).iter("flag")
    return {
        flag.findtext("name"): (
            flag.findtext("default"),
            flag.findtext("meaning") or "",
        )
        for flag in flags
        if flag.findtext("key") == "yes"
    }


def make_tables():
    """A section for each program: its docstring and a table of its flags."""
    programs = find_programs()
    of_argparse = [x for x, path in programs.items() if "argparse" in path.read_text()]
    said = ask("--helpxml", programs.keys() - of_argparse)
    said |= ask("--help", of_argparse)
    parts = []
    for package, title in PACKAGES.items():
        parts.append(f"## {title}")
        for name, path in programs.items():
            if name.split(".")[0] == package:
                about = ast.get_docstring(ast.parse(path.read_text())) or ""
                parts += [
                    f"### python -m {name}",
                    _as_markdown(about),
                    _show_flags(said[name]),
                ]
    return "\n\n".join(parts)


def _as_markdown(docstring):
    """Paragraphs that are commands, or stand further in than the text, are code."""
    parts = []
    for part in docstring.split("\n\n"):
        if re.match(r" |(\$ )?python ", part):
            part = f"```\n{textwrap.dedent(part)}\n```"
        parts.append(part)
    return "\n\n".join(parts).replace("\n```\n\n```\n", "\n\n")


def _show_flags(text):
    if missing := re.search("No module named .*", text):  # such as torch
        return missing[0]
    if "<?xml" in text:
        return _table(read_flags(text))
    return f"```\n{text[text.index('options:') :].strip()}\n```"


def _table(flags):
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    for name, (default, meaning) in flags.items():
        shown = f"`{default}`" if default not in (None, "", "None") else ""
        words = " ".join(meaning.split()).replace("|", r"\|").replace("<", r"\<")
        rows.append(f"| `--{name}` | {shown} | {words} |")
    return "\n".join(rows)
