"""A run on a budget: neither price above its share, nothing done twice, and nothing lost for the full run."""

import csv
import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from small_study import SmallTarget, loaded_source, sources, study, targets
from traitmap.analysis.recommendation.completion import gain_noise
from traitmap.api.answers import verdicts
from traitmap.api.budget import Spent, run_on_budget
from traitmap.api.runs import keep_item_groups, open_run
from traitmap.cli import app
from traitmap.cli.studies import tell_end
from traitmap.data.records import Response
from traitmap.engine.fake import FakeEngine
from traitmap.errors import UserError
from traitmap.matrix.build import build_matrix
from traitmap.matrix.statistics import grouped, numbered_groups, paired_gain
from traitmap.progress import silent
from traitmap.runs.cost import ASSUMED, request_tokens, training_tokens
from traitmap.runs.execute import execute
from traitmap.runs.ledger import read_parts
from traitmap.runs.status import Tally, run_status
from traitmap.runs.store import RunStore
from traitmap.study.settings import Study


class Counted(FakeEngine):
    """The fake engine, which remembers what it was asked and stops where it is told."""

    def __init__(self, stop_after: int | None = None, fails_at: int | None = None) -> None:
        super().__init__()
        self.trained: list[tuple[object, object]] = []
        self.answered = 0
        self.tokens = 0.0
        self.stop_after = stop_after
        self.fails_at = fails_at

    def answer(self, requests, adapter=None, listener=silent) -> list[Response]:
        if self.stop_after is not None and self.answered >= self.stop_after:
            raise KeyboardInterrupt
        self.answered += 1
        if self.answered == self.fails_at:
            raise RuntimeError("out of luck")
        self.tokens += sum(request_tokens(requests, self.token_counts, ASSUMED))
        return super().answer(requests, adapter, listener)

    def _write_log(self, **entry: object) -> None:
        if entry["call"] == "train":
            self.trained.append((entry["source"], entry["seed"]))


def flat(text: str) -> str:
    return " ".join(text.split())


def on_budget(asked: Study, engine: FakeEngine, share: float = 0.4, seed: int = 0) -> tuple[RunStore, Spent]:
    return run_on_budget(asked, engine, sources(asked), targets(), silent, share=share, seed=seed)


def whole_price(asked: Study) -> tuple[float, float]:
    """Tokens of training and of evaluation of everything, counted from nothing."""
    count = FakeEngine().token_counts
    training = sum(
        training_tokens(count([example.text for example in source.examples]), source.training)
        for source in sources(asked)
    )
    row = sum(sum(request_tokens(target.requests, count, ASSUMED)) for target in targets())
    return training * len(asked.seeds), row * (1 + 4 * len(asked.seeds))


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_neither_price_is_above_its_share(tmp_path: Path, share: float, seeds: tuple[int, ...]) -> None:
    asked, engine = study(tmp_path, seeds=seeds), Counted()
    _, spent = on_budget(asked, engine, share)
    training, evaluation = whole_price(asked)
    assert spent.training[1] == pytest.approx(training)
    assert spent.evaluation[1] == pytest.approx(evaluation)
    assert spent.evaluation[0] == pytest.approx(engine.tokens)  # what the engine was really asked
    assert spent.training[0] <= share * training + 1e-6
    assert spent.evaluation[0] <= share * evaluation + 1e-6
    assert len(engine.trained) == spent.adapters[0] == len(set(engine.trained))


def test_the_base_is_asked_first_and_cells_are_paired_with_it(tmp_path: Path) -> None:
    store, spent = on_budget(study(tmp_path, seeds=(0,)), Counted(), 0.3)
    parts = read_parts(store)
    assert {cell.target for cell in parts.cells if cell.source == "__baseline__"} == {
        target.name for target in targets()
    }
    matrix = build_matrix(store)
    assert np.isfinite(matrix.baseline).all()
    for cell in matrix.cells:
        if cell.seed is None and cell.status == "measured":
            assert cell.asked == spent.items[cell.target][0] < spent.items[cell.target][1]
            assert 0 < cell.n <= cell.asked  # items that repeat count once
            assert cell.asked_words == "{} of {}".format(*spent.items[cell.target])
            assert f"{cell.asked} asked of {cell.asked_of} items" in cell.reason
            row = matrix.sources.index(cell.source)
            scores = matrix.item_scores[cell.target][[0, 1 + row], 0]
            assert cell.gain == pytest.approx(np.nanmean(scores[1] - scores[0]))
            assert np.array_equal(np.isfinite(scores[0]), np.isfinite(scores[1]))
            column = matrix.targets.index(cell.target)
            assert matrix.gains[row, column] == pytest.approx(cell.gain)


def test_the_same_study_and_seed_choose_the_same(tmp_path: Path) -> None:
    spent = [on_budget(study(tmp_path / name), Counted())[1] for name in ("one", "other")]
    assert replace(spent[0], seconds=0) == replace(spent[1], seconds=0)
    matrices = [open_run(tmp_path / name / "small").matrix(predicted=True) for name in ("one", "other")]
    assert np.array_equal(matrices[0].values, matrices[1].values, equal_nan=True)


def test_nothing_is_done_again(tmp_path: Path) -> None:
    asked, again = study(tmp_path), Counted()
    _, first = on_budget(asked, Counted())
    _, second = on_budget(asked, again)
    assert (again.trained, again.answered) == ([], 0)
    assert replace(first, seconds=0) == replace(second, seconds=0)


def test_what_is_predicted_is_the_same_once_it_is_known_which_items_repeat(tmp_path: Path) -> None:
    """A run that is started again decides by no more than the first one knew."""
    asked = study(tmp_path, seeds=(0,))
    store, _ = on_budget(asked, Counted(), 0.6)
    first = json.loads((store.folder / "completion.json").read_text())
    keep_item_groups(store.folder, targets())
    assert build_matrix(store).item_groups
    on_budget(asked, Counted(), 0.6)
    assert json.loads((store.folder / "completion.json").read_text()) == first


@pytest.mark.parametrize("after", [2, 5, 7])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, after: int) -> None:
    whole, broken, rest = Counted(), Counted(stop_after=after), Counted()
    on_budget(study(tmp_path / "whole"), whole, 0.6)
    with pytest.raises(KeyboardInterrupt):
        on_budget(study(tmp_path / "broken"), broken, 0.6)
    on_budget(study(tmp_path / "broken"), rest, 0.6)
    assert broken.answered + rest.answered == whole.answered
    assert sorted(broken.trained + rest.trained) == sorted(whole.trained)
    told = [
        json.loads((tmp_path / name / "small" / "completion.json").read_text())
        for name in ("whole", "broken")
    ]
    assert told[0] == told[1]


def test_a_full_run_afterwards_is_a_full_run(tmp_path: Path) -> None:
    asked, after, fresh = study(tmp_path / "budget"), Counted(), Counted()
    on_budget(asked, Counted())
    execute(asked, after, sources(asked), targets())
    other = study(tmp_path / "fresh")
    execute(other, fresh, sources(other), targets())
    found, expected = build_matrix(tmp_path / "budget" / "small"), build_matrix(tmp_path / "fresh" / "small")
    assert np.array_equal(found.values, expected.values)
    assert np.array_equal(found.baseline, expected.baseline)
    assert not any(cell.asked_of for cell in found.cells)
    assert 0 < len(after.trained) < len(fresh.trained)  # what the budget had trained is used
    assert not open_run(tmp_path / "budget" / "small").matrix(predicted=True).predicted.any()


def test_a_budget_of_all_is_the_full_run_of_one_seed(tmp_path: Path) -> None:
    asked = study(tmp_path / "budget", seeds=(0,))
    store, spent = on_budget(asked, Counted(), 1.0)
    other = study(tmp_path / "fresh", seeds=(0,))
    execute(other, Counted(), sources(other), targets())
    assert spent.cells == (20, 20)
    assert np.array_equal(build_matrix(store).values, build_matrix(tmp_path / "fresh" / "small").values)


def test_predicted_cells_are_marked_and_can_be_hidden(tmp_path: Path) -> None:
    store, _ = on_budget(study(tmp_path, seeds=(0,)), Counted(), 0.3)
    run = open_run(store.folder)
    assert not run.matrix().predicted.any()
    filled = run.matrix(predicted=True)
    assert np.array_equal(filled.predicted, ~np.isfinite(run.matrix().values))
    assert filled.predicted.any()
    assert np.isfinite(filled.values).all()
    shown = CliRunner().invoke(app, ["matrix", str(store.folder)]).stdout
    hidden = CliRunner().invoke(app, ["matrix", str(store.folder), "--measured-only"]).stdout
    assert "~" in shown
    assert "predicted" in shown
    assert "~" not in hidden
    assert re.search(r"^base( +[\d.]+ °)+ *$", shown, re.MULTILINE), "the base was asked in part too"
    page = run.report().read_text(encoding="utf-8")
    assert "#matrix-predicted" in page
    assert "are predicted from the others" in page


def test_a_csv_says_that_cells_are_asked_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, spent = on_budget(study(tmp_path, seeds=(0,)), Counted(), 0.3)
    partial = spent.cells[0] - len(targets())
    wide, long = tmp_path / "wide.csv", tmp_path / "long.csv"
    told = CliRunner().invoke(app, ["matrix", str(store.folder), "--csv", str(wide)]).stderr
    assert f"{partial} cells rest on a part of the items; a wide table cannot mark them" in flat(told)
    told = CliRunner().invoke(app, ["matrix", str(store.folder), "--csv", str(long), "--intervals"]).stderr
    assert f"{partial} cells rest on a part of the items; columns asked and asked_of" in flat(told)
    with long.open(encoding="utf-8", newline="") as file:
        asked = [(row["asked"], row["asked_of"]) for row in csv.DictReader(file) if row["seed"] == ""]
    assert sum(whole == "40" for _, whole in asked) == partial + len(targets())  # the base's too


def test_an_adapter_that_is_there_costs_no_training(tmp_path: Path) -> None:
    asked = study(tmp_path / "first", seeds=(0,))
    execute(asked, FakeEngine(), sources(asked), targets())
    made = next((tmp_path / "first" / "small" / "adapters").iterdir())
    ready = loaded_source("reviews", [], asked.training, adapter=made)
    other = study(tmp_path / "second", seeds=(0,))
    given = [replace(ready, name="ready"), *sources(other)[1:]]
    _, spent = run_on_budget(other, FakeEngine(), given, targets(), silent, share=0.3)
    assert "ready" in {name for one in spent.rounds for name in one}


def test_the_cheapest_adapters_are_trained_and_the_seed_draws_among_equals(tmp_path: Path) -> None:
    asked = study(tmp_path / "priced", seeds=(0,))
    steps = dict(zip(("reviews", "sums", "topics"), (9, 1, 3), strict=True))
    priced = [
        replace(one, training=one.training.model_copy(update={"max_steps": steps.get(one.name, 27)}))
        for one in sources(asked)
    ]
    _, spent = run_on_budget(asked, Counted(), priced, targets(), silent, share=0.25)
    assert spent.cheapest[:2] == ("sums", "topics")
    assert {name for names in spent.rounds for name in names} <= set(spent.cheapest)

    alike = [replace(one, examples=priced[0].examples, training=asked.training) for one in sources(asked)]
    orders = {
        seed: run_on_budget(
            study(tmp_path / str(seed), seeds=(0,)), Counted(), alike, targets(), silent, share=1.0, seed=seed
        )[1].cheapest
        for seed in range(3)
    }
    assert {frozenset(order) for order in orders.values()} == {frozenset(one.name for one in alike)}
    assert len(set(orders.values())) > 1


def test_an_adapter_that_fails_is_predicted(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    wild = [
        replace(one, training=one.training.model_copy(update={"learning_rate": 5.0}))
        if one.name == "topics"
        else one
        for one in sources(asked)
    ]
    store, spent = run_on_budget(asked, Counted(), wild, targets(), silent, share=0.9)
    assert "topics" in {name for one in spent.rounds for name in one}
    filled = open_run(store.folder).matrix(predicted=True)
    assert filled.predicted[filled.sources.index("topics")].all()


def test_partial_cells_are_counted_until_whole_ones_replace_them(tmp_path: Path) -> None:
    asked = study(tmp_path, seeds=(0,))
    store, spent = on_budget(asked, Counted(), 0.3)
    told = run_status(store)
    assert told.partial == Tally(spent.cells[0], 0, 0)
    assert told.cells.done == told.failed == 0
    assert f"{told.partial.done} cells of these partly" in CliRunner().invoke(
        app, ["status", str(store.folder)]
    ).stdout.replace("\n", " ")
    tell_end(told)  # nothing failed, so nothing is raised
    execute(asked, FakeEngine(), sources(asked), targets())
    assert run_status(store).partial == Tally(0, 0, 0)
    assert run_status(store).complete


def test_a_partial_cell_that_fails_is_a_failed_part_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Counted()
    on_budget(study(tmp_path / "whole", seeds=(0,)), whole, 0.3)
    asked = study(tmp_path, seeds=(0,))
    store, _ = on_budget(asked, Counted(fails_at=whole.answered), 0.3)  # no later round
    told = run_status(store)
    assert told.partial.failed == told.failed == 1
    (failure,) = told.failures
    assert "out of luck" in failure.reason
    with pytest.raises(typer.Exit) as ended:
        tell_end(told)
    assert ended.value.exit_code == 3
    assert f"  {failure.source} -> {failure.target}: " in capsys.readouterr().err
    on_budget(asked, Counted(), 0.3)
    assert run_status(store).failed == 0


@pytest.mark.parametrize(("share", "said"), [(0.0, "no share"), (1.5, "no share"), (1e-4, "base's own row")])
def test_an_impossible_share_is_told(tmp_path: Path, share: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        on_budget(study(tmp_path), Counted(), share)


def test_a_part_of_a_target_has_a_key_of_its_own() -> None:
    target = targets()[0]
    assert isinstance(target, SmallTarget)
    assert target.part((0, 1)).digest != target.part((0, 2)).digest != target.digest


def test_a_cell_asked_in_part_is_looked_at_like_a_whole_one(tmp_path: Path) -> None:
    """Its verdict comes from its answers, on the items that it was asked."""
    asked = study(tmp_path, seeds=(0,))
    store, spent = on_budget(asked, Counted(), 0.5)
    partial = {(cell.source, cell.target) for cell in read_parts(store).cells}
    cells = [cell for cell in verdicts(store.folder).cells if (cell.source, cell.target) in partial]
    looked_at = {(cell.source, cell.target): cell for cell in cells if cell.q < 0.05}
    assert looked_at["sums", "nearness"].kind == "format"
    matrix = build_matrix(store)
    answered = np.isfinite(matrix.item_scores["nearness"][1 + matrix.sources.index("sums"), 0])
    assert answered.sum() == spent.items["nearness"][0] < 40
    groups = matrix.item_groups.get("nearness", np.arange(40))
    assert looked_at["sums", "nearness"].n == len(np.unique(groups[answered]))
    assert all(cell.controls for cell in looked_at.values())


def test_the_noise_of_a_cell_in_part_is_that_of_its_own_items(tmp_path: Path) -> None:
    """What completion and tests go by is the variance over the items that were asked, and their number."""
    store, spent = on_budget(study(tmp_path, seeds=(0,)), Counted(), 0.3)
    matrix = build_matrix(store)
    noise, partial = gain_noise(matrix), 0
    for (s, source), (t, target) in product(enumerate(matrix.sources), enumerate(matrix.targets)):
        scores = matrix.item_scores[target][[0, 1 + s], 0]
        answered = np.isfinite(scores).all(axis=0)
        differences = (scores[1] - scores[0])[answered]
        if not len(differences):
            continue
        (cell,) = [c for c in matrix.cells if (c.source, c.target, c.seed) == (source, target, None)]
        count = spent.items[target][0]
        assert len(differences) == count == cell.asked < cell.asked_of
        binary = bool(np.isin(scores[np.isfinite(scores)], (0, 1)).all())
        groups = numbered_groups(matrix.item_groups.get(target, np.arange(40))[answered])
        _, low, high, p = paired_gain(differences[None, None], binary=binary, groups=groups)
        assert (cell.gain_low, cell.gain_high, cell.p) == pytest.approx((low[0], high[0], p[0]), nan_ok=True)
        means = grouped(differences[None], groups)[0]
        least = 0.5 / (len(means) + 1) if np.isin(means, (-1, 0, 1)).all() else 0.0
        assert noise[s, t] == pytest.approx(max(means.var(ddof=1), least) / len(means))
        partial += 1
    assert partial == spent.cells[0] - len(targets())
