"""How far recommendations can be trusted, as a table for the terminal."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from traitmap.analysis.interval import Interval
    from traitmap.analysis.recommendation.protocol import Evaluation

SHOWN = {
    "ndcg": "NDCG",
    "ndcg@3": "NDCG@3",
    "regret@1": "Regret@1",
    "regret@3": "Regret@3",
    "mean_regret@5": "mean of 5",
    "spearman": "rank r",
    "coverage": "covered",
}


def evaluation_table(found: Evaluation) -> Group:
    """Every model with its metrics, how far the chosen one is from popularity, and what was asked."""
    asked = found.conditions
    table = Table(
        title=f"{asked['n_sources']} sources, {asked['n_targets']} targets, held out: {asked['holdout']}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("model", no_wrap=True)
    for heading in SHOWN.values():
        table.add_column(heading, justify="right")
    for name, of in found.models.items():
        style = "bold" if name == found.chosen else ""
        table.add_row(name, *(_told(of[metric], metric) for metric in SHOWN), style=style)
    return Group(table, _chosen(found), Text(_note(found), style="dim"))


def _told(one: Interval, metric: str) -> str:
    if not one.known:
        return "-"
    return f"{one.value:.2f}" if metric == "spearman" else f"{one.value:.1f}"


def _chosen(found: Evaluation) -> Table:
    """The chosen model with intervals, and its difference from popularity, target by target."""
    table = Table(title="What would be used", title_justify="left", title_style="bold")
    for heading in ("", found.chosen, "95 % interval", "less popularity", "95 % interval"):
        table.add_column(heading, justify="left" if not heading else "right")
    for metric, heading in SHOWN.items():
        one, apart = found.models[found.chosen][metric], found.differences[found.chosen][metric]
        table.add_row(
            heading, _told(one, metric), _range(one, metric), _told(apart, metric), _range(apart, metric)
        )
    return table


def _range(one: Interval, metric: str) -> str:
    if not (isfinite(one.low) and isfinite(one.high)):
        return "-"
    digits = 2 if metric == "spearman" else 1
    return f"{one.low:.{digits}f} to {one.high:.{digits}f}"


def _note(found: Evaluation) -> str:
    picked = [name for name, _ in found.picks.values()]
    counted = ", ".join(
        f"{name} {picked.count(name)} of {len(picked)}"
        for name in sorted(set(picked), key=lambda name: (-picked.count(name), name))
    )
    return (
        f"{found.chosen} is what inner folds picked in each outer fold: {counted}. NDCG, regrets and "
        "coverage (of 90 % intervals) in percent; intervals are bootstrapped over "
        f"{found.conditions['averaged_over']}. --json has every metric with its interval."
    )
