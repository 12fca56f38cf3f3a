from traitmap.data.check import preview_source
from traitmap.data.records import Example, Segment
from traitmap.data.sources import LoadedSource
from traitmap.study.settings import Lora, Training


def loaded(*pairs: tuple[str, str, str | None]) -> LoadedSource:
    examples = tuple(Example((Segment(a, False), Segment(b, True)), label) for a, b, label in pairs)
    return LoadedSource("a", examples, None, Training(warmup_steps=0), Lora(), (), "digest", {"x": 1}, 99)


def test_two_examples_of_different_labels_are_shown():
    source = loaded(("1:", " x", "x"), ("2:", " x", "x"), ("3:", " y", "y"))
    preview = preview_source(source)
    assert preview.shown == (source.examples[0], source.examples[2])
    assert (preview.examples, preview.available, preview.label_counts) == (3, 99, {"x": 1})
    assert preview.warnings == ()


def test_without_labels_the_first_two_are_shown():
    source = loaded(("1:", " x", None), ("2:", " y", None), ("3:", " z", None))
    assert preview_source(source).shown == source.examples[:2]
    assert preview_source(loaded(("1:", " x", None))).shown == loaded(("1:", " x", None)).examples
    assert preview_source(loaded()).shown == ()


def test_what_is_seldom_meant_is_told():
    blank, joined, spaced, repeated = preview_source(
        loaded(("a:", "x", None), ("b: ", "x", None), ("c:", "  ", None), ("c:", "  ", None))
    ).warnings
    assert "in 2 of 4 examples there is nothing but blanks" in blank
    assert "in 1 of 4 examples the completion follows the prompt without" in joined
    assert "in 1 of 4 examples the prompt ends in a space" in spaced
    assert "1 of 4 examples repeat" in repeated
