"use strict";
(() => {
  const STEPS = 12, SVG = "http://www.w3.org/2000/svg";
  const byId = id => document.getElementById(id);
  const make = (name, text, style) => {
    const one = document.createElement(name);
    if (text !== undefined) one.textContent = text;
    if (style) one.className = style;
    return one;
  };
  const drawn = (name, attributes, text) => {
    const one = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text !== undefined) one.textContent = text;
    return one;
  };
  const inTime = seconds => seconds === null ? "" : seconds < 90 ? `${Math.round(seconds)} s`
    : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
  const show = (id, wanted) => { byId(id).hidden = !wanted; };

  function stages(told) {
    show("stages-part", told.stages.length > 0);
    byId("stages").replaceChildren(...told.stages.map((stage, at) => {
      const row = make("div", undefined, "stage"), last = at + 1 === told.stages.length;
      const bar = make("progress");
      const share = stage.total > 0 ? Math.min(1, stage.done / stage.total) : 1;
      bar.max = 1; bar.value = share; bar.setAttribute("aria-label", stage.stage);
      const left = last && share < 1 && stage.seconds_left !== null ? `${inTime(stage.seconds_left)} left` : "";
      row.append(make("b", stage.stage), bar, make("span", `${Math.floor(100 * share)} %`));
      row.append(make("small", [left, stage.detail].filter(Boolean).join(" · ")));
      return row;
    }));
  }

  function losses(told) {
    const points = told.losses;
    show("loss-part", points.length > 1);
    if (points.length < 2) return;
    const values = points.map(point => point[1]);
    const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
    const first = points[0][0], range = points[points.length - 1][0] - first || 1;
    const x = done => 46 + 580 * (done - first) / range, y = loss => 14 + 132 * (high - loss) / span;
    const end = points[points.length - 1];
    byId("loss").replaceChildren(
      drawn("path", {d: "M46 14H626M46 146H626"}),
      drawn("text", {x: 40, y: 18, "text-anchor": "end"}, high.toFixed(2)),
      drawn("text", {x: 40, y: 150, "text-anchor": "end"}, low.toFixed(2)),
      drawn("polyline", {points: points.map(([done, loss]) => `${x(done).toFixed(1)},${y(loss).toFixed(1)}`).join(" ")}),
      drawn("circle", {cx: x(end[0]), cy: y(end[1]), r: 4}),
      drawn("text", {x: Math.min(x(end[0]), 600), y: Math.max(12, y(end[1]) - 9), "text-anchor": "middle"}, end[1].toFixed(3)));
    byId("loss").setAttribute("aria-label", `Training loss so far: from ${values[0].toFixed(2)} to ${end[1].toFixed(2)}`);
  }

  function cell(one, row, target, limit, base) {
    const shown = make("td");
    let words;
    if (one.state === "failed") { shown.className = "failed"; words = "failed"; }
    else if (one.value === null) {
      shown.className = "missing";
      words = one.seeds ? "to do" : "not asked";
    } else {
      const step = one.difference === null || !limit ? 0 : Math.round(Math.max(-1, Math.min(1, one.difference / limit)) * STEPS);
      shown.className = base || one.difference === null ? "none" : step ? `g${step < 0 ? "m" : "p"}${Math.abs(step)}` : "g0";
      words = `mean score ${one.value.toFixed(3)}` + (one.done < one.seeds ? `, ${one.done} of ${one.seeds} seeds` : "");
    }
    shown.title = `${row} on ${target}: ${words}`;
    shown.append(make("span", words, "sr-only"));
    if (one.value !== null && (base || one.done < one.seeds)) {
      const mark = make("span", base ? one.value.toFixed(2) : `${one.done}/${one.seeds}`);
      mark.setAttribute("aria-hidden", "true");
      shown.append(mark);
    }
    return shown;
  }

  function matrix(told) {
    show("matrix-part", told.targets.length > 0);
    const all = told.cells.flat().map(one => one.difference).filter(value => value !== null);
    const limit = Math.max(1, ...all.map(Math.abs));
    show("legend", all.length > 0);
    byId("limit-low").textContent = `worse by ${limit.toFixed(0)} points`;
    byId("limit-high").textContent = `better by ${limit.toFixed(0)} points`;
    const steps = [...Array(2 * STEPS + 1).keys()].map(at => at - STEPS);
    byId("ramp").replaceChildren(...steps.map(at => make("i", undefined, at ? `g${at < 0 ? "m" : "p"}${Math.abs(at)}` : "g0")));
    const head = make("thead"), names = make("tr"), body = make("tbody");
    names.append(make("td"), ...told.targets.map(target => { const one = make("th", target); one.scope = "col"; return one; }));
    head.append(names);
    told.rows.forEach((source, at) => {
      const row = make("tr"), name = source === "__baseline__" ? "base" : source, label = make("th", name);
      label.scope = "row"; label.title = name;
      row.append(label, ...told.cells[at].map((one, t) => cell(one, name, told.targets[t], limit, at === 0)));
      body.append(row);
    });
    byId("matrix").replaceChildren(head, body);
  }

  function state(told) {
    byId("name").textContent = told.name;
    document.title = `${told.name} · traitmap`;
    const line = byId("state"), there = told.cells.flat().reduce((sum, one) => sum + one.done, 0);
    const asked = told.cells.flat().reduce((sum, one) => sum + one.seeds, 0);
    const counts = `${told.adapters.done} of ${told.adapters.done + told.adapters.failed + told.adapters.missing} adapters, ${there} of ${asked} cells`;
    const ends = {
      running: `Running${told.elapsed === null ? "" : ` for ${inTime(told.elapsed)}`}: ${counts}.`,
      done: `Complete: ${counts}.`,
      stopped: `Not running: ${counts}. The same traitmap run goes on where it stopped.`,
    };
    line.textContent = ends[told.state];
    if (told.report.state === "writing") line.append(" The report is being written.");
    if (told.report.state === "failed") line.append(` No report: ${told.report.reason}`);
    if (told.report.state === "ready" && told.state !== "running") {
      const link = make("a", "Open the report");
      link.href = "report.html";
      line.append(" ", link, ".");
    }
    show("failures-part", told.failures.length > 0);
    byId("failures").replaceChildren(...told.failures.map(one => make("li", one)));
  }

  async function look() {
    let wait = 1000;
    try {
      const answer = await fetch("progress.json", {cache: "no-store"});
      const told = await answer.json();
      if (told.error) {
        byId("state").textContent = told.error;
        wait = 3000;
      } else {
        state(told); stages(told); losses(told); matrix(told);
        if (told.state === "done" && told.report.state === "ready") { location.replace("report.html"); return; }
        if (told.state !== "running") wait = 2000;
      }
    } catch {
      byId("state").textContent = "No answer: traitmap view has ended. The run itself goes on.";
      wait = 5000;
    }
    setTimeout(look, wait);
  }
  look();
})();
