import pytest
from jinja2 import TemplateError

from traitmap.study.template import MissingValueError, compiled, names_read, syntax_fault


@pytest.mark.parametrize(
    "text", ["", "plain", "{{ a }}", "{% for x in a %}{{ x }}{% endfor %}", "{{ 9**9**9 }}"]
)
def test_templates_are_checked_without_being_computed(text):
    assert syntax_fault(text) is None
    assert names_read(text) <= {"a"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ a }", "unexpected"),
        ("ok\n{{ a|nope }}", "No filter named 'nope'. (line 2 of the template)"),
        ("{% for %}", "line 1"),
        ("{{" + "(" * 5000 + "}}", "RecursionError"),
        ("{% include 'other' %}", "cannot include"),
        ("{% extends 'other' %}", "cannot include"),
    ],
)
def test_faults_are_told(text, words):
    assert words in syntax_fault(text)


def test_text_is_kept_to_the_last_newline_and_nothing_is_escaped():
    assert compiled("{{ a }} <b>\n").render(a="&") == "& <b>\n"


def test_null_is_not_written():
    with pytest.raises(MissingValueError):
        compiled("{{ a }}").render(a=None)
    assert compiled("{{ a or '' }}|{% if a is none %}empty{% endif %}").render(a=None) == "|empty"


@pytest.mark.parametrize("text", ["{{ a.__class__ }}", "{{ a.append(1) }}", "{{ a.b }}", "{{ b }}"])
def test_the_sandbox_is_strict(text):
    with pytest.raises(TemplateError):
        compiled(text).render(a=[])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ a }} {{ b.c }} {{ d['e'] }}", {"a", "b", "d"}),
        ("{% set x = a %}{% for y in z %}{{ x }}{{ y }}{% endfor %}", {"a", "z"}),
        ("{{ a|default('') }}{% if b is defined %}{{ b }}{% endif %}{{ range(3) }}", set()),
    ],
)
def test_names_read_are_the_columns_a_row_must_have(text, names):
    assert names_read(text) == names
