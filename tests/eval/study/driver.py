"""Makes two runs of two slow commands each, until it is killed."""

import pathlib
import sys

from eval.study.work import make_all
from tests.eval.study.jobs import job

pool = pathlib.Path(sys.argv[1])
jobs = [job("a", seconds=float(sys.argv[2])), job("b", seconds=float(sys.argv[2]))]
make_all(jobs, jobs, pool, [{}], lambda *_: None)
