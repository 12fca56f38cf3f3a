"""The page that follows a run in progress: one small file that asks for JSON and shows what it says."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from traitmap.report import palette

TEMPLATES = Path(__file__).parent / "templates"


def following_page() -> str:
    """The page, without any datum of a run: names come later, as JSON, and are set as text."""
    page, style, script = (_file(f"following.{kind}") for kind in ("html", "css", "js"))
    for theme in ("light", "dark"):
        style = style.replace(f"/* {theme} palette */", palette.variables(theme))
    style = style.replace("/* palette classes */", palette.rules())
    return page.replace("/* style */", style).replace("/* script */", script)


def following_policy() -> str:
    """The page's content security policy: its own script, its own style, its own server, nothing else."""
    digest = b64encode(sha256(_file("following.js").encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
