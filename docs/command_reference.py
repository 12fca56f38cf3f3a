"""Every command with its arguments, options and examples, read off the application, as Markdown.

python docs/command_reference.py          # prints the page; the site makes it by itself
"""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import Any

HEAD = """# Commands

Data go to standard output, progress and messages to standard error, so a command can be piped. Tables fit 80
columns in a pipe and carry no colour there; `NO_COLOR` takes it away on a terminal too. Every command that
prints data takes `--json`. Exit codes: 0 done, 2 something that you can mend, 3 finished with failed parts,
130 interrupted with Ctrl-C; of `audit` also 4 harm and 5 cannot tell. `traitmap --install-completion`
teaches your shell the commands, options, run folders, figures and targets.
"""


def page() -> str:
    """The whole page, commands in the order of the work."""
    from typer.main import get_command

    from traitmap.cli import app

    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([HEAD, *(_section(name, command) for name, command in commands.items())])


def examples(command: Any) -> list[str]:
    """The lines that a command's help gives as examples."""
    return re.findall(r"Example: (.+)", cleandoc(command.help or ""))


def _section(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"traitmap {name}")
    description = re.sub(r"Example: .+", "", cleandoc(command.help or "")).strip()
    usage = " ".join(["traitmap", name, *command.collect_usage_pieces(context)])
    lines = [f"## traitmap {name}", "", description, "", "```text", usage, "```", "", "```bash"]
    lines += [*examples(command), "```", "", "| | |", "|---|---|"]
    for option in command.params:
        record = option.get_help_record(context)
        if record is not None and "--help" not in option.opts:
            lines.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page())
