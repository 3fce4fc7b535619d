"""Makes two runs of two slow commands each, until it is killed."""

import pathlib
import sys

from eval.study.runner import make_all
from tests.eval.study.jobs import job

if __name__ == "__main__":
    pool, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
    jobs = [job("a", seconds=seconds), job("b", seconds=seconds)]
    make_all(jobs, jobs, pool, [{}], lambda *_: None)
