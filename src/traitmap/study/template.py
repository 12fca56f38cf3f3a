"""The Jinja of a study file: sandboxed, on a budget, and strict about what is not there."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, nodes, pass_context
from jinja2.meta import TrackingCodeGenerator
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from traitmap.study.bounded_template import BoundedEnvironment, written


class MissingValueError(TemplateError):
    """A template wrote a column whose value in this row is null."""


@pass_context
def _written(_: Context, value: Any) -> Any:
    """Null is not text: without this, a row with an empty cell would teach the word ``None``.

    Taking the context keeps Jinja from computing constant expressions when a template is only read.
    """
    if value is None:
        raise MissingValueError("a null value would be written")
    return written(value)


class _StudyEnvironment(BoundedEnvironment, ImmutableSandboxedEnvironment):
    """A row that a template reads stays as it is."""


_SANDBOX = _StudyEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_written)


def syntax_fault(text: str) -> str | None:
    """Why ``text`` is not a Jinja template, or None where it is one."""
    try:
        compiled(text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        return f"{error.message}" + (f" (line {line} of the template)" if line else "")
    except (SyntaxError, ValueError, RecursionError, OverflowError, MemoryError) as error:
        return f"it cannot be compiled ({type(error).__name__})"
    return "it cannot include or import other templates" if _loads_others(text) else None


@lru_cache(maxsize=512)
def compiled(text: str) -> Template:
    """The template, ready to render; text is kept to the last newline."""
    return _SANDBOX.from_string(text)


@lru_cache(maxsize=512)
def names_read(text: str) -> frozenset[str]:
    """Variables that a row must have: those the template reads without asking whether they exist."""
    tree = _SANDBOX.parse(text)
    # what jinja2.meta.find_undeclared_variables does, but for computing constant expressions
    generator = TrackingCodeGenerator(_SANDBOX)
    generator.optimizer = None
    generator.visit(tree)
    return frozenset(generator.undeclared_identifiers - _guarded(tree) - set(_SANDBOX.globals))


def _loads_others(text: str) -> bool:
    loading = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    return next(_SANDBOX.parse(text).find_all(loading), None) is not None


def _guarded(tree: nodes.Template) -> set[str]:
    """Names tested by ``is defined`` or given a ``default``."""
    tested = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    defaulted = [part.node for part in tree.find_all(nodes.Filter) if part.name in ("default", "d")]
    return {node.name for node in (*tested, *defaulted) if isinstance(node, nodes.Name)}
