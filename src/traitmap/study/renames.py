"""Sources under new names: a run knows them by what they are made of.

A source's first weights, order of rows and drawn rows come from a name (``Source.draws_as``), by default its
own. So two sources with the same data are two draws, whose difference shows what a draw is worth, and every
result of old runs stays what it is; a seed from the data alone would make them the same adapter. The price
would be that a new name makes a new adapter. It is not paid: a source with the settings of one that the
folder's last run had under another name draws under that one's name, and the record of the study keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from traitmap.study.derived import source_of_row
from traitmap.study.paths import digest
from traitmap.study.settings import Study

# What says nothing about the rows and the training of a source
_APART = ("name", "tags", "target", "train", "draws_as", "checkpoints")
_REFERENCES = ("match_tokens", "match_steps")


def with_former_names(study: Study, before: Mapping[str, Any] | None) -> tuple[Study, dict[str, str]]:
    """A study whose sources draw as they did in the folder's last run, and the new names: new -> former.

    before: that run's study as JSON data (``runs.store.read_study``); None where there was none. A source is
    renamed where one of its settings is in the last run under a name that the study has no more, or has for
    other settings now. A name under which another source draws is not drawn under twice.
    """
    former = [entry for entry in (before or {}).get("sources", ()) if isinstance(entry, dict)]
    old = {str(entry.get("name")): entry for entry in former}
    entries = [source.model_dump(mode="json", by_alias=True) for source in study.sources]
    new = {entry["name"]: entry for entry in entries}
    is_now, was = _contents(entries), _contents(former)
    gone = [name for name in old if is_now.get(name) != was[name]]
    renamed, draws = dict[str, str](), dict[str, str]()
    for name in new:
        same = was.get(name) == is_now[name]
        match = name if same else next((one for one in gone if was[one] == is_now[name]), None)
        if match is not None:
            draws[name] = old[match].get("draws_as") or match
            if not same:
                gone.remove(match)
                renamed[name] = match
    for name in [name for name in new if name not in draws]:
        wished, number = old.get(name, {}).get("draws_as") or name, 1
        while (free := wished if number == 1 else f"{wished}.{number}") in draws.values():
            number += 1
        draws[name] = free
    sources = tuple(
        source.model_copy(update={"draws_as": draws[source.name]})
        if source.draws_as is None and draws[source.name] != source.name
        else source
        for source in study.sources
    )
    return study.model_copy(update={"sources": sources}), renamed


def _contents(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> digest of all that its rows and its training come from, those of other sources included."""
    by_name = {str(entry.get("name")): entry for entry in entries}
    contents = dict[str, str]()

    def content(name: str) -> str:
        entry = by_name.get(name)
        if entry is None or name in contents:
            return contents.get(name, name)
        contents[name] = name  # a source in a circle finds itself here
        settings = {key: value for key, value in entry.items() if key not in _APART and value is not None}
        if settings.get("from") is not None:
            settings["from"] = content(str(settings["from"]))
        if isinstance(settings.get("concat"), Mapping):
            settings["concat"] = [[content(part), weight] for part, weight in settings["concat"].items()]
        if isinstance(settings.get("merge"), list):
            rows = [source_of_row(str(part)) for part in settings["merge"]]
            settings["merge"] = [[content(part), step] for part, step in rows]
        for key in _REFERENCES:
            if isinstance(settings.get(key), str):
                settings[key] = content(settings[key])
        contents[name] = digest(settings)
        return contents[name]

    for name in by_name:
        content(name)
    return contents
