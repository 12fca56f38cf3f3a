"""The Jinja of a study file: sandboxed, on a budget, and strict about what is not there.

No template can run for ever or fill the memory: every turn of a loop and every call is paid from a budget of
one rendering, and no step may make more than a million characters or items. Jinja's own sandbox shuts out
attributes and methods that lead to code. `BoundedEnvironment` serves lm-eval's templates too.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, TemplateError, nodes, pass_context
from jinja2.meta import TrackingCodeGenerator
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

STEPS = 200_000  # turns of loops and calls of one rendering
LARGEST = 1_000_000  # characters or items that one step may make
WRITTEN = 10_000_000  # characters that one rendering may write
_BITS = 100_000  # of a whole number
_WIDE = re.compile(r"\d{5,}|\*")  # widths of fields: "%99999999d", "%*d"
_COUNTED, _SIZED = "traitmap_counted", "traitmap_sized"


class TooMuchError(SecurityError):
    """A template would run too long or make something too large."""


class _Budget(threading.local):
    steps = STEPS
    written = WRITTEN
    price = 1


_budget = _Budget()


class BoundedTemplate(Template):
    """Renders on a budget of its own."""

    price: int

    def render(self, *values: Any, **named: Any) -> str:
        before = _budget.steps, _budget.written, _budget.price
        _budget.steps, _budget.written, _budget.price = STEPS, WRITTEN, getattr(self, "price", 1)
        try:
            return super().render(*values, **named)
        finally:
            _budget.steps, _budget.written, _budget.price = before


class BoundedEnvironment(SandboxedEnvironment):
    """Jinja's sandbox, with loops, calls, filters, operators and output on a budget."""

    template_class = BoundedTemplate
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(optimized=False, **options)
        self.globals.pop("lipsum", None)  # writes at random
        for name, filter_ in list(self.filters.items()):
            self.filters[name] = guarded(filter_, name)
        self.filters[_COUNTED] = _counted
        self.filters[_SIZED] = sized

    def from_string(self, source: Any, *rest: Any, **options: Any) -> Template:
        template = super().from_string(source, *rest, **options)
        if isinstance(source, str):  # text that stands in a loop is written at every turn
            vars(template)["price"] = 1 + len(source) // 1000
        return template

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _OnBudget().visit(super()._parse(source, name, filename))
        return tree

    def call(__self, __context: Context, __obj: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N805
        _spend(1)
        arguments = tuple(map(_with_an_end, arguments))
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps str.format
        _check_arguments(getattr(method, "__name__", ""), getattr(method, "__self__", None), arguments, named)
        return sized(super().call(__context, __obj, *arguments, **named))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operation(operator, left, right)
        return sized(super().call_binop(context, operator, left, right))


class _OnBudget(NodeTransformer):
    """Puts what the sandbox does not see by itself, loops and ``~``, through filters of ours."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        node.iter = _filtered(node.iter, _COUNTED)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return _filtered(self.generic_visit(node), _SIZED)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@pass_context
def paid(_: Context, value: Any) -> Any:
    """``written`` for Jinja's ``finalize``; the context keeps it from computing constants while it reads."""
    return written(value)


def written(value: Any) -> Any:
    """What a template writes, paid for."""
    _budget.written -= weight(value if isinstance(value, str) else sized(value))
    if _budget.written < 0:
        raise TooMuchError(f"the template writes more than {WRITTEN:,} characters")
    return value


def guarded(filter_: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A filter that pays for its call and neither takes nor gives what is too large."""

    @functools.wraps(filter_)  # keeps the marks by which Jinja passes its context
    def guard(*arguments: Any, **named: Any) -> Any:
        _spend(1)
        arguments = tuple(map(_with_an_end, arguments))
        plain = [value for value in arguments if not isinstance(value, Context | Environment | EvalContext)]
        _check_arguments(name, plain[0] if plain else None, plain[1:], named)
        return sized(filter_(*arguments, **named))

    return guard


def sized(value: Any) -> Any:
    """The value, if it is not too large."""
    if weight(value) > LARGEST:
        raise TooMuchError(f"the template makes something of more than {LARGEST:,} characters or items")
    return value


def weight(value: Any) -> int:
    """Characters and items of a value as it would be written, those that stand in it twice counted twice."""
    if isinstance(value, str | bytes):
        return len(value)
    if not isinstance(value, list | tuple | set | dict):
        return value.bit_length() // 3 if isinstance(value, int) else 1
    total, open_values = 0, [value]
    while open_values and total <= LARGEST:
        item = open_values.pop()
        if isinstance(item, list | tuple | set):
            open_values.extend(item)
        elif isinstance(item, dict):
            open_values.extend(item)
            open_values.extend(item.values())
        total += len(item) if isinstance(item, str | bytes) else 1
        if len(open_values) > LARGEST:
            return LARGEST + 1
    return total


def _counted(values: Any) -> Iterator[Any]:
    for value in values:
        _spend(1)
        yield value


def _with_an_end(value: Any) -> Any:
    """What is made while it is read gives up once it has made too much."""
    if not isinstance(value, Iterator):
        return value

    def limited() -> Iterator[Any]:
        total = 0
        for item in value:
            total += 1 + weight(item)
            if total > LARGEST:
                raise TooMuchError(
                    f"the template makes something of more than {LARGEST:,} characters or items"
                )
            yield item

    return limited()


def _spend(steps: int) -> None:
    _budget.steps -= steps * _budget.price
    if _budget.steps < 0:
        raise TooMuchError(f"the template takes more than {STEPS:,} turns of loops and calls")


def _check_arguments(name: str, of: Any, arguments: Iterable[Any], named: Mapping[str, Any]) -> None:
    """Refuse a call whose result could be too large before it is made. of: whose method or filter it is."""
    values = [*arguments, *named.values()]
    for value in (of, *values):
        if isinstance(value, int) and abs(value) > LARGEST and name not in _PLAIN_NUMBERS:
            raise TooMuchError(f"the template gives {name or 'a call'} a number beyond {LARGEST:,}")
        sized(value)
    texts = [weight(value) for value in values]
    most = weight(of)
    if name == "replace" and len(texts) > 1:
        most = weight(of) // max(texts[0], 1) * texts[1] + texts[1]
    elif name == "join":
        separator = weight(of) if isinstance(of, str) else (texts[0] if texts else 0)
        items = values[0] if isinstance(of, str) and values else of
        most = weight(items) + separator * (len(items) if isinstance(items, list | tuple | dict | set) else 1)
    elif name in ("format", "format_map", "translate", "indent", "expandtabs"):
        most = (weight(of) + 1) * (max(texts, default=0) + 1)
        if isinstance(of, str) and _WIDE.search(of):
            most = LARGEST + 1
    if most > LARGEST:
        raise TooMuchError(f"the template makes something of more than {LARGEST:,} characters by {name}")


def _check_operation(operator: str, left: Any, right: Any) -> None:
    whole = isinstance(left, int) and isinstance(right, int)
    if operator == "**":
        small = not whole or left.bit_length() * max(right, 0) <= _BITS
        small = small and not (isinstance(left, str | list) or isinstance(right, str | list))
    elif operator == "*":
        if whole:
            small = left.bit_length() + right.bit_length() <= _BITS
        else:
            many = right if isinstance(right, int) else left if isinstance(left, int) else 1
            small = abs(many) * max(weight(left), weight(right), 1) <= LARGEST or (
                isinstance(left, float) or isinstance(right, float)
            )
    elif operator == "%" and isinstance(left, str):
        small = not _WIDE.search(left) and (left.count("%") + 1) * (weight(right) + 1) <= LARGEST
    else:
        small = weight(left) + weight(right) <= LARGEST
    if not small:
        raise TooMuchError(f"the template makes something too large by {operator}")


# filters and functions that only look at a number: it may be as large as it likes
_PLAIN_NUMBERS = frozenset({"abs", "default", "d", "float", "int", "string", "round", "min", "max", "tojson"})


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
    """Why ``text`` is not a Jinja template, or None where it is one.

    Nothing is rendered. Templates that include, import or extend others are refused too.
    """
    try:
        compiled(text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        return f"{error.message}" + (f" (line {line} of the template)" if line else "")
    except (SyntaxError, ValueError, RecursionError, OverflowError, MemoryError) as error:
        return f"it cannot be compiled ({type(error).__name__})"
    loading = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    loads_others = next(_SANDBOX.parse(text).find_all(loading), None) is not None
    return "it cannot include or import other templates" if loads_others else None


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
    # names tested by ``is defined`` or given a ``default``
    tested = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    defaulted = [part.node for part in tree.find_all(nodes.Filter) if part.name in ("default", "d")]
    optional = {node.name for node in (*tested, *defaulted) if isinstance(node, nodes.Name)}
    return frozenset(generator.undeclared_identifiers - optional - set(_SANDBOX.globals))
