from math import isnan

from traitmap.study.families import Family, families


def made(parent: str, kind: str, dose, before=0.0, **beside):
    changes = {kind: {"rate": dose, "mode": beside.pop("mode", "uniform")}, **beside}
    return {
        "variation": {
            "parents": [parent],
            "kind": kind,
            "changes": changes,
            "dose": dose,
            "parent_dose": before,
            "meaning": "share",
        }
    }


PLAIN = {"variation": None}


def test_doses_rise_and_the_parent_is_one_of_them():
    (family,) = families(
        {"all": made("stars", "mislabel", 1.0), "stars": PLAIN, "half": made("stars", "mislabel", 0.5)}
    )
    assert family == Family(
        "stars", "mislabel", '{"mode": "uniform"}', ("stars", "half", "all"), (0.0, 0.5, 1.0), "share"
    )
    assert family.variations == ("half", "all")


def test_what_differs_in_another_thing_is_another_family():
    sources = {
        "stars": PLAIN,
        "a": made("stars", "mislabel", 0.5),
        "b": made("stars", "mislabel", 0.5, mode="switch"),
        "c": made("a", "shuffle_words", 0.5),
        "d": made("stars", "shuffle_words", 0.5, subsample=100),
        "e": made("stars", "shuffle_words", 1.0, match_steps="stars"),
    }
    found = {(one.parent, one.kind, one.setting): one.sources for one in families(sources)}
    assert found == {
        ("stars", "mislabel", '{"mode": "uniform"}'): ("stars", "a"),
        ("stars", "mislabel", '{"mode": "switch"}'): ("stars", "b"),
        ("a", "shuffle_words", ""): ("a", "c"),
        ("stars", "shuffle_words", '{"subsample": 100}'): ("d",),
        ("stars", "shuffle_words", '{"match_steps": "stars"}'): ("stars", "e"),
    }


def test_a_parent_that_was_not_trained_is_no_member_and_unknown_doses_come_last():
    (family,) = families({"x": made("gone", "loss_on", None), "y": made("gone", "loss_on", 0.1)})
    assert family.sources == ("y", "x")
    assert isnan(family.doses[1])


def test_mixtures_and_plain_sources_make_no_family():
    mixture = {"variation": {"parents": ["a", "b"], "kind": "concat"}}
    assert families({"a": PLAIN, "b": {}, "m": mixture}) == ()
