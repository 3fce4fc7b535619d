"""Files, headings, programs, flags and config keys that the documents name exist."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from configs.eval import voc_faster_rcnn_c4
from docs.site import programs
from sp_jax import methods
from sp_jax.config import get_config

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted(
    set((ROOT / "docs").rglob("*.md")) - set((ROOT / "docs").rglob("_build/**/*"))
)
PROGRAM = r"(?:benchmarks|eval|input_pipeline|sp_jax)\.[a-z_.]*[a-z_]"
EXAMPLE = "configs/quickstart.py"
END = r" [#&|>]|;"  # of a command in a line
RECIPES = [ROOT / "Makefile", *(ROOT / "configs").rglob("*.py")]
PROGRAMS = [
    path
    for folder in ("benchmarks", "eval", "input_pipeline", "sp_jax")
    for path in (ROOT / folder).rglob("*.py")
]
CODE = "\n".join(path.read_text() for path in PROGRAMS)
# Defined by name, or fields of the options of an evaluator.
FLAGS = set(re.findall(r'"(?:--)?([a-z_]+)"', CODE))
FLAGS |= set(re.findall(r"^ {2,4}([a-z_]+): ", CODE, re.MULTILINE))
SCHEMAS = [get_config().to_dict(), voc_faster_rcnn_c4.get_config().to_dict()]
OPEN_GROUPS = (
    "method_options",
    "model",
    "evals",
    "detector",
)  # arguments of a function
# Modules and flags of other programs.
FOREIGN = {
    "mypackage.myeval",
    *("venv", "pip", "pytest", "http", "slow", "sphinx", "help"),
    *("quiet", "logdir", "nodes", "signal", "requeue", "dist", "fix", "check"),
}


# Parses commands, by program, as their programs would; nothing runs. A process for each
# program, made where what most of them import is there, and in it one for each command.
PARSE = """
import json, os, runpy, sys
import eval.plots, input_pipeline.stores, scipy.stats, sp_jax.train.loop
from absl import app, flags

def parse(main, argv=None, flags_parser=flags.FLAGS):
    codes = [0]
    for command in commands:
        if not (child := os.fork()):
            sys.argv = command
            flags_parser(command)
            os._exit(0)
        codes.append(os.waitpid(child, 0)[1])
        if codes[-1]:
            print(command, flush=True)
    os._exit(bool(max(codes)))

app.run, codes = parse, [0]
sys.stderr = sys.stdout
for program, commands in json.load(sys.stdin).items():
    if not (child := os.fork()):
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        os._exit(1)
    codes.append(os.waitpid(child, 0)[1])
sys.exit(bool(max(codes)))
"""


def name(path):
    return str(path.relative_to(ROOT))


def anchors(path):
    """GitHub's: a heading in lower case, dashes for spaces, punctuation dropped."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES + RECIPES, ids=name)
def test_programs_flags_and_keys_are_there(page):
    """Words in capitals, as METHOD, stand for others."""
    text = page.read_text()
    for module in (
        set(re.findall(r"-m ([a-z_]\w*(?:\.[a-z_]+)*)\b(?!\.)", text)) - FOREIGN
    ):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or path.is_dir(), module
    for file in re.findall(
        r"(?<![\w/])(?:configs|sp_jax|eval|benchmarks|tests)/[a-z0-9_/]+\.py", text
    ):
        assert (ROOT / file).exists(), file
    flags = set(re.findall(r"(?<![\w-])--([a-z_]+)\b(?!-)", text)) - FOREIGN
    unknown = {flag for flag in flags - FLAGS if not flag.startswith("xla_")}
    assert not unknown
    for key in re.findall(r"--config\.([a-z][\w.]*)", text):
        group, *rest = key.rstrip(".").split(".")
        found = [plain[group] for plain in SCHEMAS if group in plain]
        assert found, key
        if rest and group not in OPEN_GROUPS:
            assert any(rest[0] in keys for keys in found), key


def test_help_of_a_program_lists_the_flags_that_are_named():
    """Also in the docstrings of the code; a program that cannot start lists none."""
    named = {}
    for page in [*PAGES, *ROOT.glob("docs/s*/*.py"), *RECIPES, *PROGRAMS]:
        text = re.sub(r"\\\n\s*", " ", page.read_text())
        for program, words in re.findall(rf"-m ({PROGRAM})\b([^\n`#]*)", text):
            named.setdefault(program, set()).update(re.findall(r"--([a-z_]+)", words))
    assert named.keys() <= programs.find_programs().keys()
    for program, text in programs.ask("--help", named).items():
        listed = set(re.findall(r"^ +--(?:\[no\])?([a-z_]+)", text, re.MULTILINE))
        assert named[program] <= listed, (
            f"{program}: {named[program] - listed}\n{text[-2000:]}"
        )


def blocks(page, *languages):
    """Code of a page, but for what is marked, above it, as not run."""
    found = re.findall(
        r"(^.*\n)?^```(.*)\n((?:(?!```).*\n)*)```$", page.read_text(), re.MULTILINE
    )
    return [
        code
        for above, language, code in found
        if language in languages and not above.startswith("<!-- not run: ")
    ]


@pytest.mark.slow
def test_commands_are_such_as_their_programs_take():
    """Flags and keys are there, and values of their kind; words in capitals are some value."""
    commands = {}
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", "\n".join(blocks(page, "", "bash")))
        text = re.sub(r"config=(?:…|recipe\.py)", f"config={EXAMPLE}", text)
        text = re.sub(r"SEED|\$seed", "0", text.replace("$PYTHONPATH/", ""))
        for program, rest in re.findall(rf"python -m ({PROGRAM})(.*)", text):
            words = [program, *shlex.split(re.split(END, rest)[0])]
            whole = " …" not in rest
            if (
                whole
                and "argparse" not in programs.find_programs()[program].read_text()
            ):
                commands.setdefault(program, []).append(words)
    assert sum(map(len, commands.values())) > 60
    done = subprocess.run(
        [sys.executable, "-c", PARSE],
        cwd=ROOT,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stdout + done.stderr


def test_python_in_the_pages_is_run_by_a_test():
    """A block that is added needs a test, or a mark that says why there is none."""
    tested = {
        "README.md": 2,  # test_readme.py
        "CONTRIBUTING.md": 2,  # test_adding.py
        "docs/adding.md": 5,  # test_adding.py
        "docs/data.md": 1,  # test_own_store.py
        "docs/evaluation.md": 3,  # test_own_evaluator.py, test_embed.py
        "docs/scaling.md": 1,  # test_checkpoint.py
        "docs/start.md": 1,
    }
    counts = {name(page): len(blocks(page, "python")) for page in PAGES}
    assert not [page for page, count in counts.items() if count > tested.get(page, 0)]
    (code,) = blocks(ROOT / "docs/start.md", "python")
    assert code in PAGES[0].read_text()


def test_tables_are_whole():
    readme, studies = PAGES[0].read_text(), (ROOT / "docs" / "studies.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| \[(\w+)\]\(sp_jax/methods", readme, re.MULTILINE)
    assert sorted(rows) == sorted(methods.NAMES)
    rows = re.findall(r"^\| `(\w+)` \| [^|]+\? \|", studies, re.MULTILINE)
    files = {path.stem for path in (ROOT / "configs" / "studies").glob("*.py")}
    assert set(rows) == files - {"__init__", "common"}


def test_messages_that_a_page_quotes_are_in_the_code():
    """Four words in a row, as what stands between them is another in each run."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    code = re.sub(r'"\s*f?"', "", CODE)  # a string in pieces becomes one
    quoted = re.findall(r"```\n(.*?)```", page, re.DOTALL)
    quoted += re.findall(r"`([^`\n]+)`", page)
    messages = [q.split() for q in quoted if not q.startswith("-") and q.count(" ") > 5]
    assert len(messages) > 10
    for words in messages:
        runs = (" ".join(words[i : i + 4]) for i in range(len(words) - 3))
        assert any(run in code for run in runs), " ".join(words)
