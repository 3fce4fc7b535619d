"""Runs of `fake` commands."""

from eval.study.plan import Command, Job


def command(name, seconds=0.0, *rest):
    words = ("tests.eval.study.fake", "{folder}", name, str(seconds), *rest)
    return Command(name, words)


def job(arm, *commands, after="", seed=0, seconds=0.0):
    commands = commands or (command("first", seconds), command("second", seconds))
    return Job(
        arm, seed, f"{arm}/seed{seed}", after and f"{after}/seed{seed}", commands
    )


def calls(pool, arm, name, what="calls", seed=0):
    """How often a command of a run began, or ended."""
    path = pool / arm / f"seed{seed}" / f"{what}_{name}"
    return len(path.read_text().splitlines()) if path.exists() else 0
