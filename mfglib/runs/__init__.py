"""Stored runs: directories that resume, what makes a run the same run, and a replay of what it learned."""

from mfglib.sources import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "RunDirectory": "mfglib.runs.directory",
        "describe": "mfglib.runs.identity",
        "learners_file": "mfglib.runs.directory",
        "replay": "mfglib.runs.replay",
        "write": "mfglib.runs.directory",
    },
)
