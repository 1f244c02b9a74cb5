"""Sphinx's settings for the site: what Jupyter Book 1 sets, and the project's own mends. See docs/site/build.py."""

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes

HERE = Path(__file__).resolve().parent

project = "DEDA-FP"
author = "The deda-fp authors"
html_title = "DEDA-FP: mean field games, solved and certified"
root_doc = "index"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx.ext.mathjax"]

nb_execution_mode = "off"  # what is shown is what is stored
nb_merge_streams = True
nb_ipywidgets_js: dict[str, Any] = {}  # a stored panel is a picture; nothing is fetched
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # levels of headings may jump

mathjax_path = "mathjax/tex-svg-full.js"  # with all its extensions and no fonts: it asks for no other file
python_maximum_signature_line_length = 70
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "undoc-members": True, "ignore-module-all": True}

html_theme = "sphinx_book_theme"
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,  # it would offer the sources of pages; notebooks name theirs at the top
    "use_fullscreen_button": False,
    "search_bar_text": "Search",
}
html_context = {"default_mode": "light"}  # as the pictures are
html_static_path = [str(HERE.parents[1] / "results/site/static")]
html_css_files = ["site.css"]
html_copy_source = False

RUN = """:::{{admonition}} Run this {what}
:class: tip

On this page nothing runs: outputs are the stored ones, and a panel shows its first position. In the project's folder,
```sh
make lab
```
opens JupyterLab; there, open `{path}` and run all cells. {more}{{download}}`The notebook itself <{name}>`.
:::"""
FIGURES = "`make figures` runs all notebooks and draws all figures. "
STARTER = "Its checks tell you how far you are; they fail until you have filled in the gaps. "


def with_hint(app: Any, docname: str, source: list[str]) -> None:
    """Say below the title of a notebook how to run it."""
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".ipynb" or path.name == "index.ipynb":
        return
    notebook, exercise = json.loads(source[0]), path.parent.name == "exercises"
    title, rest = "".join(notebook["cells"][0]["source"]).split("\n", 1)
    where = f"{docname}.ipynb"
    hint = RUN.format(
        what="exercise" if exercise else "notebook",
        path=where.removeprefix("notebooks/"),
        name=path.name,
        more=STARTER if exercise else FIGURES,
    )
    notebook["cells"][0]["source"] = f"{title}\n\n{hint}\n{rest}"
    source[0] = json.dumps(notebook)


def prose(text: str) -> str:
    """Text in which only `code` is markup: a star, a bar or a final underscore is itself."""
    parts = text.split("`")
    for i, part in enumerate(parts):
        parts[i] = f"``{part}``" if i % 2 else re.sub(r"[*|\\]|_(?!\w)", r"\\\g<0>", part)
        if i % 2 and parts[i + 1 : i + 2] and re.match(r"\w", parts[i + 1]):
            parts[i] += "\\ "
    return "".join(parts)


def rows(block: str) -> list[tuple[bool, str]]:
    """The paragraphs (False) and items (True) of a docstring's paragraph: what is indented, or starts with a dash, is a
    list, an item of which starts with its names and a colon."""
    found: list[tuple[bool, str]] = []
    margin = 0
    for line in block.splitlines():
        indent, text = len(line) - len(line.lstrip()), line.strip()
        inside = bool(found and found[-1][0])
        dash, named = text.startswith("- "), re.match(r"[\w, ]+(\([^()]*\))?: ", text)
        starts = (
            dash or not found or (indent > 0 and not inside) or (inside and indent <= margin and (named or not indent))
        )
        if starts:
            margin = indent
            found.append((dash or indent > 0, text.removeprefix("- ")))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]} {text}")
    return found


def docstring(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """From the project's plain docstrings to what Sphinx reads: a block with columns stays as it is."""
    made = []
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip()):
        if re.search(r"\S {3,}\S", block):
            made += ["::", "", *(f"    {line}" for line in block.splitlines()), ""]
            continue
        for item, text in rows(block):
            made += [f"* {prose(text)}" if item else prose(text), ""]
    lines[:] = made


def displayed_as_written(app: Any, doctree: nodes.document) -> None:
    r"""Sphinx puts lines with \\ into `split`, which forbids \tag: hand formulas to MathJax as they are."""
    for formula in doctree.findall(nodes.math_block):
        if not formula.get("nowrap"):
            text = f"\\[{formula.astext()}\\]"
            formula.replace_self(nodes.math_block(text, text, nowrap=True, number=None, classes=formula["classes"]))


def setup(app: Any) -> None:
    app.connect("source-read", with_hint)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("doctree-read", displayed_as_written)
