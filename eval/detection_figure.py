"""The former name of the command `eval.detection.figure`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("eval.detection.figure", run_name="__main__", alter_sys=True)
