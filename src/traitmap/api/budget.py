"""A study run on a budget: the cheapest adapters, chosen cells and items, all other cells predicted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from traitmap.analysis.profiles.pairs import pair_features
from traitmap.analysis.recommendation.completion import (
    Aim,
    Price,
    before_anything,
    choose_cells,
    choose_item_share,
    complete,
    expected_noise,
    importance,
    items_asked,
    read_table,
)
from traitmap.analysis.recommendation.gaussian import TablePosterior, infer, make_prior
from traitmap.api.runs import PREDICTIONS, completion_data, keep_item_groups
from traitmap.data.texts import texts_of_sources, texts_of_targets
from traitmap.errors import MatrixError, UserError
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.build import build_matrix
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.progress import Listener
from traitmap.runs.cost import ASSUMED, request_tokens, trained_tokens
from traitmap.runs.execute import execute
from traitmap.runs.files import write_sealed_json
from traitmap.runs.ledger import Selection
from traitmap.runs.plan import AdapterUnit, CellUnit
from traitmap.runs.run_state import PassCheckpoints
from traitmap.runs.store import RunStore, locked_store
from traitmap.study.paths import digest
from traitmap.study.settings import BASELINE, Study

if TYPE_CHECKING:
    from traitmap.analysis.profiles.pairs import PairFeatures
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine

ROUNDS = 3
LEVEL = 0.9
TEXTS = 300  # of each source and target, for what they have in common


@dataclass(frozen=True)
class Spent:
    """What a run on a budget spent, of what the whole run costs.

    adapters: trained, or there before; cells: measured, the base's among them. items: target -> (asked, of
    all). training, evaluation: (tokens spent, tokens of the whole run). cheapest: sources whose adapters the
    share of training pays for, cheapest first. rounds: sources of which cells were measured for the first
    time in each.
    seconds: of this call; what an earlier call had measured took none. reason: why nothing is predicted.
    """

    share: float
    seed: int
    adapters: tuple[int, int]
    cells: tuple[int, int]
    items: Mapping[str, tuple[int, int]]
    training: tuple[float, float]
    evaluation: tuple[float, float]
    cheapest: tuple[str, ...]
    rounds: tuple[tuple[str, ...], ...]
    seconds: float
    reason: str = ""

    __repr__ = outline


@dataclass(frozen=True)
class _Prices:
    """Names in canonical order (sorted), with prices in tokens.

    training: adapter -> the training that it comes out of (a checkpoint out of its source's), and the tokens
    until then. needs: source -> the adapters that its row needs: its own, a merge's parents; none where it
    is there. evaluation: (T,) of a whole cell. whole_training,
    whole_evaluation: of the whole run.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    training: Mapping[str, tuple[str, float]]
    needs: Mapping[str, frozenset[str]]
    evaluation: Array
    whole_training: float
    whole_evaluation: float

    def needed(self, sources: Iterable[str]) -> frozenset[str]:
        """The adapters that the rows of these sources need."""
        return frozenset[str]().union(*(self.needs[source] for source in sources))

    def kept(self, sources: Iterable[str], able: Iterable[str]) -> frozenset[str]:
        """The adapters that the trainings for these sources give, of those that rows of ``able`` may need."""
        trainings = {self.training[name][0] for name in self.needed(sources)}
        return frozenset(name for name in self.needed(able) if self.training[name][0] in trainings)

    def tokens(self, adapters: Iterable[str]) -> float:
        """Of the trainings that these adapters come out of, each once, as far as the last of them."""
        longest = dict[str, float]()
        for name in adapters:
            training, tokens = self.training[name]
            longest[training] = max(tokens, longest.get(training, 0.0))
        return sum(longest[training] for training in sorted(longest))


def run_on_budget(
    study: Study,
    engine: Engine,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    listener: Listener,
    *,
    share: float,
    seed: int = 0,
    aim: Aim = "best",
    checkpoints: PassCheckpoints | None = None,
) -> tuple[RunStore, Spent]:
    """Measure what a share of the whole run's price allows, where it tells most, and predict the rest.

    The base is asked first. Adapters are trained cheapest first, as far as training may cost; equals in an
    order drawn by the seed. Of their cells the most informative for their price are asked, in rounds. Neither
    training nor evaluation may cost more than the share of what it would cost in full. Choices depend on the
    study, the seed and what was measured because of earlier choices, so that a run that is started again
    makes the same ones and finds them done. One seed of each source is trained, the study's first.
    Writes ``budget.json`` and ``completion.json`` into the run folder. checkpoints: as for ``execute``.
    UserError where the share buys not even the base.
    """
    if not 0 < share <= 1:
        raise UserError(f"--budget {share:g} is no share; give a number above 0 and at most 1, such as 0.25")
    started = time.monotonic()
    prices = _price_list(study, engine, sources, targets)
    features = _features(sources, targets, seed)
    left = share * prices.whole_evaluation
    by_name = {target.name: target for target in targets}
    rows = _affordable(prices, share * prices.whole_training, seed)
    items = _asked_items(prices, features, by_name, rows, left, seed)
    part = np.array([_tokens(by_name[name], items.get(name), engine) for name in prices.targets])
    campaign = _Campaign(
        study=study,
        prices=prices,
        part=part,
        items=items,
        open_rows=rows,
        left=left - float(part.sum()),
        counts=np.array([len(items.get(name, ())) or by_name[name].n_items for name in prices.targets]),
        existing=frozenset(source.name for source in sources if not source.seeded),
        checkpoints=checkpoints,
    )
    if campaign.left < -1e-6:
        raise UserError(
            f"--budget {share:g} does not pay for the base's own row ({part.sum():,.0f} tokens of "
            f"{left:,.0f}); give at least {part.sum() / prices.whole_evaluation:.2f}"
        )
    store, matrix = _measure(campaign, engine, sources, targets, listener, features, seed, aim)
    spent = campaign.spent(share, seed, by_name, started, matrix)
    return store, _write(store, matrix, features, spent, seed)


@dataclass
class _Campaign:
    """A run on a budget in progress: what has been chosen, and what is left to spend.

    part: (T,) tokens of a cell of the items that are asked. open_rows: sources of which cells may be asked,
    those that are there first, then the cheapest. left: tokens of evaluation.
    """

    study: Study
    prices: _Prices
    part: Array
    items: Mapping[str, tuple[int, ...]]
    open_rows: Sequence[int]
    left: float
    counts: Array
    existing: frozenset[str]
    checkpoints: PassCheckpoints | None = None
    rounds: tuple[tuple[int, ...], ...] = ()
    cells: tuple[tuple[int, int], ...] = ()

    @property
    def rows(self) -> list[int]:
        return [source for sources in self.rounds for source in sources]

    @property
    def trained(self) -> frozenset[str]:
        """Adapters of the rows so far, and what later rows may need of the same trainings."""
        rows, able = (
            [self.prices.sources[source] for source in sources] for sources in (self.rows, self.open_rows)
        )
        return self.prices.kept(rows, able)

    def choose(self, posterior: TablePosterior, noise: Array, weight: Array, rounds_left: int) -> bool:
        """Choose the next round's cells; False where what it may cost buys none."""
        price = Price(np.repeat(self.part[None, :], len(self.prices.sources), axis=0), noise)
        open_cells = np.zeros(posterior.mean.shape, dtype=bool)
        open_cells[list(self.open_rows)] = True
        for cell in self.cells:
            open_cells[cell] = False
        cells = choose_cells(posterior, price, open_cells, weight, self.left / rounds_left)
        if not cells:
            return False
        asked = {source for source, _ in cells}
        self.rounds = (*self.rounds, tuple(s for s in self.open_rows if s in asked and s not in self.rows))
        self.cells = (*self.cells, *cells)
        self.left -= float(sum(self.part[target] for _, target in cells))
        return True

    def selection(self) -> Selection:
        seed = self.study.seeds[0]
        trained = frozenset((name, seed) for name in self.trained)
        cells = [CellUnit(BASELINE, None, target) for target in self.prices.targets]
        for source, target in self.cells:
            name = self.prices.sources[source]
            cells.append(CellUnit(name, None if name in self.existing else seed, self.prices.targets[target]))
        return Selection(trained, tuple(cells), self.items)

    def known(self, matrix: TransferMatrix) -> TransferMatrix:
        """The matrix of what was chosen, without whatever else the folder holds."""
        chosen = {(self.prices.sources[s], self.prices.targets[t]) for s, t in self.cells}
        mask = np.array(
            [[(source, target) in chosen for target in matrix.targets] for source in matrix.sources]
        )
        return replace(matrix, values=np.where(mask, matrix.values, nan))

    def spent(
        self,
        share: float,
        seed: int,
        targets: Mapping[str, LoadedTarget],
        started: float,
        matrix: TransferMatrix,
    ) -> Spent:
        seeds, names = len(self.study.seeds), self.prices.sources
        rows = len(self.existing) + seeds * (len(names) - len(self.existing))
        evaluation = float(self.part.sum() + sum(self.part[target] for _, target in self.cells))
        measured = int(np.isfinite(self.known(matrix).values).sum() + np.isfinite(matrix.baseline).sum())
        return Spent(
            share=share,
            seed=seed,
            adapters=(len(self.rows), rows),
            cells=(measured, (1 + rows) * len(self.prices.targets)),
            items={
                name: (int(count), targets[name].n_items)
                for name, count in zip(self.prices.targets, self.counts, strict=True)
            },
            training=(self.prices.tokens(self.trained), self.prices.whole_training),
            evaluation=(evaluation, self.prices.whole_evaluation),
            cheapest=tuple(names[source] for source in self.open_rows if self.prices.needs[names[source]]),
            rounds=tuple(tuple(names[source] for source in chosen) for chosen in self.rounds),
            seconds=time.monotonic() - started,
        )


def _measure(
    campaign: _Campaign,
    engine: Engine,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    listener: Listener,
    features: PairFeatures | None,
    seed: int,
    aim: Aim,
) -> tuple[RunStore, TransferMatrix]:
    """Round by round: choose cells, train what they need, evaluate, learn from it."""
    names = campaign.prices
    prior = make_prior(names.sources, names.targets, features)
    posterior = before_anything(prior)
    noise = expected_noise(campaign.counts, len(names.sources))
    metrics, better = np.zeros(len(names.targets), dtype=int), np.ones(len(names.targets))

    def measure() -> RunStore:
        """Do what has been chosen so far."""
        return execute(
            campaign.study,
            engine,
            sources,
            targets,
            listener,
            selection=campaign.selection(),
            checkpoints=campaign.checkpoints,
        )

    store = measure()
    keep_item_groups(store.folder, targets)  # before anything is learnt, as a run started again knows them
    for rounds_left in range(ROUNDS, 0, -1):
        weight = importance(posterior, aim, metrics, better, seed=seed)
        if not campaign.choose(posterior, noise, weight, rounds_left):
            continue
        store = measure()
        try:
            table = read_table(campaign.known(build_matrix(store)), features)
        except MatrixError:  # too little is known to learn from it
            continue
        posterior = infer(table.prior, table.observed, table.metrics, seed=seed, calibrate=False)
        noise, metrics, better = table.item_noise, table.metrics, table.better
    return store, build_matrix(store)


def _price_list(
    study: Study, engine: Engine, sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget]
) -> _Prices:
    price = dict[str, tuple[str, float]]()
    for source in sources:
        if source.trained:
            alone = AdapterUnit(source.name, 0, "", source.step)
            training = source.variation.parents[0] if source.step and source.variation else source.name
            price[source.name] = training, trained_tokens([alone], source, engine.token_counts)
    whole = sum(price[source.name][1] for source in sources if source.trained and source.step is None)
    columns = sorted(targets, key=lambda target: target.name)
    evaluation = np.array([_tokens(target, None, engine) for target in columns])
    rows = sum(len(study.seeds) if source.seeded else 1 for source in sources)
    return _Prices(
        sources=tuple(sorted(source.name for source in sources)),
        targets=tuple(target.name for target in columns),
        training=price,
        needs=_trainings_of(sources),
        evaluation=evaluation,
        whole_training=whole * len(study.seeds),
        whole_evaluation=float(evaluation.sum()) * (1 + rows),
    )


def _affordable(prices: _Prices, budget: float, seed: int) -> tuple[int, ...]:
    """Sources whose rows training can pay for, cheapest first; those that are there cost nothing.

    What several rows need is paid once: parents of merges, and trainings that give checkpoints. Equals come
    in an order that the seed draws by name, so that another source in the study does not turn it over.
    """
    order = sorted(prices.sources, key=lambda name: digest([seed, "adapter", name]))
    rows: list[str] = []
    while others := [name for name in order if name not in rows]:
        name = min(others, key=lambda other: prices.tokens(prices.needed([*rows, other])))
        if prices.tokens(prices.needed([*rows, name])) > budget * (1 + 1e-9):
            break
        rows.append(name)
    return tuple(prices.sources.index(name) for name in rows)


def _trainings_of(sources: Sequence[LoadedSource]) -> dict[str, frozenset[str]]:
    """source -> the sources and checkpoints that must be trained for its row: itself, a merge's parents."""
    by_name = {source.name: source for source in sources}

    def needed(name: str) -> frozenset[str]:
        source = by_name[name]
        if source.merge is not None:
            return frozenset[str]().union(*(needed(parent) for parent in source.merge.parents))
        return frozenset((name,) if source.trained else ())

    return {source.name: needed(source.name) for source in sources}


def _tokens(target: LoadedTarget, items: Sequence[int] | None, engine: Engine) -> float:
    """Tokens to be read and written for a cell of some items of a target, of all where None."""
    part = target if items is None else target.part(items)
    return sum(request_tokens(part.requests, engine.token_counts, ASSUMED))


def _asked_items(
    prices: _Prices,
    features: PairFeatures | None,
    targets: Mapping[str, LoadedTarget],
    rows: Sequence[int],
    left: float,
    seed: int,
) -> dict[str, tuple[int, ...]]:
    """target -> the items that are asked, where these are not all: a fixed draw for each target."""
    posterior = before_anything(make_prior(prices.sources, prices.targets, features))
    available = [targets[name].n_items for name in prices.targets]
    share = choose_item_share(
        posterior,
        rows=rows,
        evaluation=prices.evaluation,
        available=available,
        weight=np.ones(posterior.mean.shape),
        budget=left,
    )
    counts = items_asked(available, share)
    drawn = {}
    for name, count, n in zip(prices.targets, counts, available, strict=True):
        if count < n:
            generator = np.random.default_rng(int(digest([seed, targets[name].digest], 12), 16))
            drawn[name] = tuple(sorted(int(i) for i in generator.permutation(n)[:count]))
    return drawn


def _features(
    sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget], seed: int
) -> PairFeatures | None:
    """What is known of every pair before anything is trained; None where a source has no texts."""
    if any(not source.examples for source in sources):
        return None
    by_side = texts_of_sources(sources), texts_of_targets(targets)
    rows, columns = ({name: _some(texts[name], seed) for name in sorted(texts)} for texts in by_side)
    sizes = {source.name: len(source.examples) for source in sources}
    return pair_features(rows, columns, sizes=sizes, seed=seed)


def _some(texts: Sequence[Any], seed: int) -> tuple[Any, ...]:
    if len(texts) <= TEXTS:
        return tuple(texts)
    drawn = np.random.default_rng(seed).permutation(len(texts))[:TEXTS]
    return tuple(texts[index] for index in sorted(drawn))


def _write(
    store: RunStore, matrix: TransferMatrix, features: PairFeatures | None, spent: Spent, seed: int
) -> Spent:
    """Store what was spent, and the prediction of every cell that is not measured."""
    try:
        completed = complete(matrix, features, level=LEVEL, seed=seed)
    except MatrixError as error:  # the share bought too little: the base alone, say
        completed = replace(matrix, conditions={**matrix.conditions, "completion": {}})
        spent = replace(spent, reason=str(error))
    with locked_store(store.folder) as locked:
        write_sealed_json(locked.folder / PREDICTIONS, completion_data(completed))
        write_sealed_json(locked.folder / "budget.json", jsonable(spent))
    return spent
