"""Slides of a notebook, from its own cells and stored outputs: `python -m deda_fp.slides` (`make slides`).

A slide for each section, below it what else it says and its pictures. Code is left out, but what it drew and printed
stays. nbconvert writes pages of reveal.js. It comes from npm once, like all that they load, and is kept beside them: a
lecture needs no net.
"""

import argparse
import html
import re
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode, v4

from deda_fp.vendored import MATHJAX, TEX, fetch
from mfglib.files import replacing

ROOT = Path(__file__).resolve().parents[1]
LECTURES = ("00_mean_field_games", "02_deda_fp_on_lq", "03_error_propagation")
NO_WORDS = 'alt="No description has been provided for this image"'  # nbconvert's
LEFT_OUT = re.compile(r"## Exercises\b")
VENDOR = "vendor"  # folder of scripts, beside the pages
SCRIPTS = {  # package: its path -> that in the folder
    MATHJAX: {TEX: "tex-svg-full.js"},
    "reveal.js@4.0.2": {"dist": "reveal/dist", "plugin/notes": "reveal/plugin/notes"},
    "requirejs@2.3.7": {"require.js": "require.js"},
    "jquery@3.7.1": {"dist/jquery.min.js": "jquery.min.js"},
}
# nbconvert's page, with MathJax 3 in the place of 2, which its script asks to draw formulas anew, and without Mermaid.
PAGE = f"""
{{%- extends "index.html.j2" -%}}
{{%- block html_head_js_mermaidjs -%}}{{%- endblock -%}}
{{%- block html_head_js_mathjax -%}}
<script>
window.MathJax = {{
  tex: {{inlineMath: [["$", "$"]], processEscapes: true, tags: "ams"}},
  startup: {{ready() {{ MathJax.startup.defaultReady(); MathJax.Hub = {{getAllJax() {{}}}}; }}}},
}};
</script>
<script src="{VENDOR}/tex-svg-full.js"></script>
{{%- endblock -%}}
"""


def tagged(notebook: NotebookNode) -> NotebookNode:
    """A copy whose cells have nbconvert's metadata `slideshow.slide_type`.

    Text that holds several headings becomes a cell for each. A cell that begins a section is a "slide", other text and
    code with pictures are "subslide", captions and code with other outputs go on ("-"). Code without outputs and
    exercises are "skip", and cells that are tagged already stay as they are.
    """
    copy, kept = v4.new_notebook(metadata=notebook.metadata), True
    for cell in notebook.cells:
        if cell.cell_type == "code":
            kind = "subslide" if drawn(cell) else "-" if cell.outputs else "skip"
            parts = [(kind, cell)]
        else:
            texts = [text for text in re.split(r"^(?=##? )", cell.source, flags=re.M) if text.strip()]
            caption = copy.cells and drawn(copy.cells[-1]) and re.match(r"\*[^*]", texts[0])
            below = "-" if caption else "subslide"
            parts = [("slide" if text.startswith("#") else below, v4.new_markdown_cell(text)) for text in texts]
        for kind, part in parts:
            if kind == "slide":
                kept = not LEFT_OUT.match(part.source)
            metadata = {"slideshow": {"slide_type": kind if kept else "skip"}} | cell.metadata
            copy.cells.append(nbformat.from_dict(part | {"metadata": metadata}))
    return copy


def drawn(cell: NotebookNode) -> bool:
    """Whether a cell has a picture as its output."""
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def write(notebook: Path, folder: Path) -> Path:
    """Slides of `notebook` in `folder`, as NAME.slides.html; returns the file."""
    exporter = SlidesExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.raw_template, exporter.reveal_scroll = PAGE, True
    exporter.reveal_theme, exporter.reveal_url_prefix = "white", f"{VENDOR}/reveal"  # others fetch fonts
    exporter.require_js_url, exporter.jquery_url = f"{VENDOR}/require.js", f"{VENDOR}/jquery.min.js"
    shown = tagged(nbformat.read(notebook, 4))
    page, _ = exporter.from_notebook_node(shown)
    pictures = [o for cell in shown.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    for output in pictures:  # the template of slides, unlike others, leaves out the words for those who do not see
        words = output.metadata.get("image/png", {}).get("alt", "")
        page = page.replace(NO_WORDS, f'alt="{html.escape(words)}"', 1)
    file = folder / f"{notebook.stem}.slides.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part:
        part.write_text(page, encoding="utf-8")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: the three lectures of docs/course.md")
    parser.add_argument("--output", type=Path, default=Path("results/slides"))
    arguments = parser.parse_args()
    for package, kept in SCRIPTS.items():
        fetch(package, {name: arguments.output / VENDOR / target for name, target in kept.items()})
    for notebook in arguments.notebooks or [ROOT / f"notebooks/{name}.ipynb" for name in LECTURES]:
        print(f"slides: {write(notebook, arguments.output)}")


if __name__ == "__main__":
    main()
