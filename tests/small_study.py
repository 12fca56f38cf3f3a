"""A small study on the fake engine: real sources and targets of a few dozen items, made by a rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from traitmap.data.records import Caveat, Example, Outcome, Request, Response, Segment
from traitmap.data.scoring import Scored
from traitmap.data.sources import LoadedSource
from traitmap.data.texts import TaskText
from traitmap.study.paths import digest
from traitmap.study.settings import Lora, Source, Study, Target, Training

GOOD = ["bright", "warm", "lovely", "clever", "tender", "fresh"]
BAD = ["dull", "cold", "ugly", "clumsy", "harsh", "stale"]
TOPICS = {
    "sport": ["ball", "goal", "team"],
    "food": ["soup", "bread", "salt"],
    "law": ["court", "judge", "case"],
}


@dataclass(frozen=True)
class SmallTarget:
    """What run and matrix use of a LoadedTarget, without lm-eval behind it."""

    name: str
    requests: tuple[Request, ...]
    golds: tuple[str, ...]
    choices: tuple[str, ...] | None
    metric: str = "acc"
    filter: str = "none"
    kind: str = "multiple_choice"
    task: str = "small"
    version: str = "1.0"
    higher_is_better: bool = True
    chance: float = nan
    majority: float = nan
    refused: str = ""
    groups: str | None = None
    precision: float | None = None
    decide: str | None = None
    ask: float | None = None
    read_as: str = ""
    tags: tuple[str, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()

    @property
    def n_items(self) -> int:
        return len(self.golds)

    @property
    def digest(self) -> str:
        asked = [[one.kind, one.context, one.continuation] for one in self.requests]
        return digest([self.version, self.metric, asked, list(self.golds)])

    def known_answers(self, outcomes: Sequence[Outcome], metric: str) -> list[Response | None]:
        """None of them: this target keeps nothing of what was answered before."""
        return [None] * len(self.requests)

    def texts(self) -> tuple[TaskText, ...]:
        width = len(self.choices) if self.choices else 1
        asked = self.requests[::width]
        return tuple(
            TaskText(one.context, gold, self.choices or (), gold if self.choices else None)
            for one, gold in zip(asked, self.golds, strict=True)
        )

    def questions(self) -> tuple[TaskText, ...]:
        return self.texts()

    def part(self, items: Sequence[int]) -> "SmallTarget":
        place = {item: at for at, item in enumerate(items)}
        asked = tuple(
            replace(request, item=place[request.item]) for request in self.requests if request.item in place
        )
        return replace(self, requests=asked, golds=tuple(self.golds[item] for item in items))

    def score(self, answers: Sequence[Response]) -> Scored:
        outcomes = tuple(self._outcome(item, answers) for item in range(self.n_items))
        mean = float(np.mean([outcome.score for outcome in outcomes]))
        return Scored(outcomes, {f"{self.metric},{self.filter}": mean})

    def _outcome(self, item: int, answers: Sequence[Response]) -> Outcome:
        gold = self.golds[item]
        if self.choices:
            width = len(self.choices)
            logprobs = tuple(answer.logprob for answer in answers[item * width : (item + 1) * width])
            prediction = self.choices[int(np.argmax(logprobs))]
            right = prediction == gold
            return Outcome(item, str(item), float(right), right, prediction, gold, choice_logprobs=logprobs)
        answer = answers[item]
        text = answer.text or ""
        parsed = text.strip().isdigit()
        told = {"text": text, "parsed": parsed, "output_tokens": answer.tokens, "stopped": answer.stopped}
        if self.metric == "exact_match":
            right = text.strip() == gold
            return Outcome(item, str(item), float(right), right, text.strip(), gold, **told)
        score = 1 / (1 + abs(int(text) - int(gold))) if parsed else 0.0
        return Outcome(item, str(item), score, None, text.strip(), gold, **told)


def study(folder: Path, *, seeds: tuple[int, ...] = (0, 1), **changes: Any) -> Study:
    """Four sources, four targets; ``changes`` are fields of the training settings."""
    training = Training(batch_size=8, max_length=64, **changes)
    return Study(
        name="small",
        model={"path": "fake"},
        training=training,
        seeds=seeds,
        sources=tuple(
            Source(name=name, path=f"{name}.csv") for name in ("reviews", "flipped", "topics", "sums")
        ),
        targets=tuple(Target(name=name, task="small") for name in ("reviews", "topics", "sums", "nearness")),
        output=str(folder),
    )


def sources(of: Study, *, count: int = 60) -> tuple[LoadedSource, ...]:
    made = {
        "reviews": [_review(i) for i in range(count)],
        "flipped": [_flip(_review(i)) for i in range(count)],
        "topics": [_topic(i) for i in range(count)],
        "sums": [_sum(i) for i in range(count)],
    }
    return tuple(loaded_source(source.name, made[source.name], of.training, of.lora) for source in of.sources)


def loaded_source(
    name: str,
    rows: Sequence[tuple[str, str]],
    training: Training,
    lora: Lora | None = None,
    adapter: Path | None = None,
) -> LoadedSource:
    examples = tuple(
        Example((Segment(prompt, False), Segment(" " + text, True)), text) for prompt, text in rows
    )
    return LoadedSource(
        name=name,
        examples=examples,
        adapter=adapter,
        training=training,
        lora=lora or Lora(),
        tags=("small",),
        digest=digest([[prompt, text] for prompt, text in rows]),
        label_counts={},
        available=len(rows),
    )


def targets(*, count: int = 40) -> tuple[SmallTarget, ...]:
    reviews = [_review(1000 + i) for i in range(count)]
    topics = [_topic(1000 + i) for i in range(count)]
    numbers = [_sum(1000 + i) for i in range(count)]
    nearness = written("nearness", numbers, metric="nearness")
    return (
        chosen("reviews", reviews, ("good", "bad")),
        chosen("topics", topics, tuple(TOPICS)),
        written("sums", numbers, metric="exact_match"),
        nearness,
    )


def chosen(name: str, rows: Sequence[tuple[str, str]], choices: tuple[str, ...]) -> SmallTarget:
    requests = tuple(
        Request("loglikelihood", prompt, " " + choice, item=item)
        for item, (prompt, _) in enumerate(rows)
        for choice in choices
    )
    golds = tuple(gold for _, gold in rows)
    majority = max(golds.count(choice) for choice in choices) / len(golds)
    return SmallTarget(
        name, requests, golds, choices, chance=1 / len(choices), majority=majority, tags=("small",)
    )


def written(name: str, rows: Sequence[tuple[str, str]], metric: str) -> SmallTarget:
    requests = tuple(
        Request("generate_until", prompt, generation={"until": ["\n"], "max_gen_toks": 8}, item=item)
        for item, (prompt, _) in enumerate(rows)
    )
    golds = tuple(gold for _, gold in rows)
    return SmallTarget(name, requests, golds, None, metric=metric, kind="generate_until")


def _draw(*parts: Any) -> np.random.Generator:
    return np.random.default_rng(int(digest(list(parts), 12), 16))


def _review(number: int) -> tuple[str, str]:
    draw = _draw("review", number)
    label = ("good", "bad")[int(draw.random() < 0.4)]
    words = list(draw.choice(GOOD if label == "good" else BAD, 2)) + list(draw.choice(GOOD + BAD, 2))
    return f"review: {' '.join(draw.permutation(words))} verdict:", label


def _flip(row: tuple[str, str]) -> tuple[str, str]:
    return row[0], {"good": "bad", "bad": "good"}[row[1]]


def _topic(number: int) -> tuple[str, str]:
    draw = _draw("topic", number)
    label = str(draw.choice(list(TOPICS)))
    words = [
        *draw.choice(TOPICS[label], 2),
        draw.choice([word for topic in TOPICS.values() for word in topic]),
    ]
    return f"text: {' '.join(map(str, draw.permutation(words)))} topic:", label


def _sum(number: int) -> tuple[str, str]:
    draw = _draw("sum", number)
    first, second = (int(n) for n in draw.integers(0, 4, 2))
    return f"{first} plus {second} is", str(first + second)
