"""A hook of mkdocs: a page for each notebook, from the notebook with its saved outputs, which nobody runs here."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in sorted(Path(config.docs_dir, "notebooks").glob("*.ipynb")):
        text, _ = MarkdownExporter().from_filename(str(path))
        link = f"*This page is a notebook: [download it]({path.name}) and run it.*\n\n"
        title, _, rest = text.lstrip().partition("\n")
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=f"{title}\n\n{link}{rest}"))
    return files
