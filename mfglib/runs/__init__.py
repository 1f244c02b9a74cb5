"""Stored runs: directories that resume, what makes a run the same run, and a replay of what it learned."""

from mfglib.sources import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "mfglib.runs.directory": "RunDirectory learners_file read_settings",
        "mfglib.files": "DamagedFile read_table replacing write write_table",
        "mfglib.runs.identity": "describe",
        "mfglib.runs.packed": "pack",
    },
)
