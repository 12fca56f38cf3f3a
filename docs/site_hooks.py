"""What mkdocs does beside reading the pages: commands, what pages leave out, links that lead out of them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Pages that the nav does not name go to its last section, so that a new page is never left out."""
    named = set(re.findall(r"[\w-]+\.md", repr(config["nav"])))
    others = sorted(path.name for path in HERE.glob("*.md") if path.name not in named)
    (last,) = config["nav"][-1].values()
    last[:] = [*last, *(one for one in others if one not in last)]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the page of commands, made from the application as it is now."""
    from mkdocs.structure.files import File

    content = runpy.run_path(str(HERE / "command_reference.py"))["page"]()
    files.append(File.generated(config, "commands.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Public names that the page of Python does not tell are added to it. A link to a file of the repository
    is no link on the site: its text says where the file is."""
    if page.file.src_path == "python.md":
        markdown = "\n".join([markdown, *_untold(markdown)])
    return _OUTSIDE.sub(r"\1 (`\2` in the repository)", markdown)


def _untold(markdown: str) -> list[str]:
    """Lines for the public names that a page does not have."""
    import traitmap

    homes = {name: getattr(traitmap, name) for name in traitmap.__all__}
    paths = [
        home.__name__ if not hasattr(home, "__module__") else f"{home.__module__}.{home.__name__}"
        for home in homes.values()
    ]
    missing = [path for path in paths if f"::: {path}\n" not in markdown + "\n"]
    return ["", "## Further names", "", *(f"::: {path}" for path in missing)] if missing else []
