"""`traitmap forecast` on the embedded study: gradients of its base, and what they are worth on a table."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

import traitmap as tm
from traitmap.cli import app


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast") / "mini"
    tm.write_template(folder, "mini")
    return folder / "study.yaml"


def test_a_study_is_forecast_and_judged_on_a_table(study, tmp_path):
    """The table holds the forecast's own order as gains, so what it is worth is known: all."""
    runner = CliRunner()
    pairs = tmp_path / "pairs.csv"
    done = runner.invoke(app, ["forecast", str(study), "--sample", "16", "--csv", str(pairs)])
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(pairs)
    table = frame.assign(score=50 - frame["rank"]).pivot(index="source", columns="target", values="score")
    table.loc["__baseline__"] = 45.0
    table.to_csv(tmp_path / "table.csv")
    judged = runner.invoke(
        app,
        ["forecast", str(study), "--sample", "16", "--run", str(tmp_path / "table.csv"), "--json"],
    )
    assert judged.exit_code == 0, judged.output
    record = json.loads(judged.stdout)
    own = next(one for one in record["standings"] if one["name"] == "forecast")
    assert own["correlation"]["value"] == pytest.approx(1.0)
    assert record["worth"].startswith("On table.csv it goes with measured gains by a rank correlation of +1")
    earlier = tmp_path / "earlier.json"
    earlier.write_text(judged.stdout)
    kept = tm.forecast(study, earlier=earlier, run=tmp_path / "table.csv")
    assert json.loads(json.dumps(kept.to_json())) == record
    again = frame.pivot(index="source", columns="target", values="gain")
    expected = pd.DataFrame(record["gain"], index=record["sources"], columns=record["targets"])
    pd.testing.assert_frame_equal(
        again.sort_index().sort_index(axis=1),
        expected.sort_index().sort_index(axis=1),
        check_names=False,
        rtol=1e-4,
    )


def test_a_server_gives_no_gradients(tmp_path):
    served = tmp_path / "served.yaml"
    served.write_text(
        "name: served\n"
        "model: {path: base, endpoint: {url: 'http://localhost:1/v1'}}\n"
        "sources: [{name: a, served_as: a}]\n"
        "targets: [mini_arithmetic]\n"
    )
    with pytest.raises(tm.ModelError, match="gives no gradients; forecast with a base on this machine"):
        tm.forecast(served)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "cannot be read as a forecast in JSON"),
        ("{}", "not a forecast as `traitmap forecast --json` writes it: 'sources'"),
        (
            '{"sources": ["a"], "targets": ["b"], "gain": [[1, 2]], "stderr": [[1]], "conditions": {}}',
            "1 sources, 1 targets, but gain \\(1, 2\\) and stderr \\(1, 1\\)",
        ),
    ],
)
def test_what_is_no_forecast_is_refused(study, tmp_path, text, fault):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(tm.DataError, match=fault):
        tm.forecast(study, earlier=tmp_path / "f.json")
