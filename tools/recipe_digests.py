"""SHA-256 of all parameters of each quick recipe after five steps, for refactorings.

    taskset -c 0 python tools/recipe_digests.py > after.txt && diff before.txt after.txt

Both on one core: with another number of cores XLA adds in another order.

Each recipe is trained as a user would train it; only the commands have to stay the same.
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import orbax.checkpoint as ocp

STEPS = 5
FLAGS = (
    "--config.epochs=0.1",  # five steps of the drawings
    "--config.optimizer.warmup_epochs=0.0",
    "--config.evals={}",
)


def digest(workdir: pathlib.Path) -> str:
    """SHA-256 hex over names, dtypes, shapes and bytes of a run's parameters."""
    with ocp.PyTreeCheckpointer() as reader:
        state = reader.restore(workdir / "checkpoints" / str(STEPS) / "state")
    whole = hashlib.sha256()

    def add(tree: dict, name: str) -> None:
        for key in sorted(tree):
            if isinstance(tree[key], dict):
                add(tree[key], f"{name}/{key}")
            else:
                value = np.asarray(tree[key])
                whole.update(f"{name}/{key} {value.dtype} {value.shape}".encode())
                whole.update(np.ascontiguousarray(value).tobytes())

    add(state["params"], "")
    return whole.hexdigest()


def main() -> None:
    """Train, and print one line for each recipe."""
    root = pathlib.Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((root / "configs").glob("*.py")):
            text = path.read_text()
            if "is_quick(" not in text or path.name == "tiny_imagenet.py":
                continue
            workdir = pathlib.Path(folder) / path.stem
            words = ("-m", "sp_jax.main", f"--config={path}:quick", *FLAGS)
            subprocess.run(
                [sys.executable, *words, f"--workdir={workdir}"],
                cwd=root,
                check=True,
                capture_output=True,
            )
            print(f"{path.stem} {digest(workdir)}", flush=True)


if __name__ == "__main__":
    main()
