"""The table that every benchmark prints, and its rows as JSON."""

import json
import operator
from pathlib import Path

COMPARE = {"<=": operator.le, ">=": operator.ge}


def row(measure: str, value: float, unit: str = "", target: str | None = None) -> dict:
    """A row {"measure", "value", "unit", "target", "met"}; `target` is "<= number" or ">= number", or None."""
    met = None
    if target is not None:
        sign, number = target.split()
        met = bool(COMPARE[sign](value, float(number)))
    return {"measure": measure, "value": float(value), "unit": unit, "target": target, "met": met}


def report(rows: list[dict], file: str | None = None) -> None:
    """Print the rows as a table; write them as JSON to `file` if given."""
    width = max(len(r["measure"]) for r in rows)
    for r in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[r["met"]]
        print(f"{r['measure']:<{width}}  {r['value']:>10.4g} {r['unit']:<3} {r['target'] or '':>10}  {verdict}")
    if file:
        Path(file).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
