"""`python -m mfglib`, which hands on to the companion's command line: the one import that goes upwards."""

import runpy

runpy.run_module("deda_fp", run_name="__main__", alter_sys=True)
