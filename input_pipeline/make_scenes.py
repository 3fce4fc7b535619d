"""The former name of the command `eval.detection.make_scenes`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("eval.detection.make_scenes", run_name="__main__", alter_sys=True)
