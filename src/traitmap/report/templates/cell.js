// The page of a cell: answers, lengths, items won and lost. #cell=source/target leads to it.
(() => {
  const { make, draw, data, typeset } = traitmap;
  const sum = (values) => values.reduce((total, one) => total + one, 0);
  const percent = (share) => (share > 0 && share < 0.005 ? "<1" : String(Math.round(100 * share)));

  // A confusion matrix as SVG: shares of each gold class, the counts beneath.
  const confusion = (title, labels, columns, counts) => {
    const size = Math.max(34, Math.min(62, Math.floor(300 / columns.length)));
    const cut = (name, most) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);
    const left = Math.min(110, 18 + 6.6 * Math.max(...labels.map((name) => Math.min(name.length, 14))));
    const slanted = columns.some((name) => name.length * 6.6 > size);
    const top = slanted ? 30 + 4.6 * Math.max(...columns.map((name) => Math.min(name.length, 14))) : 40;
    const right = slanted ? 46 : 4;
    const svg = draw("svg", {
      class: "figure confusion", role: "img", "aria-label": `${title}: answers by gold class; the same numbers stand in the table below`,
      width: left + columns.length * size + right, height: top + labels.length * size + 4,
      viewBox: `0 0 ${left + columns.length * size + right} ${top + labels.length * size + 4}`,
    });
    svg.append(draw("text", { x: left, y: 12, class: "axis" }, "answered"), draw("text", { x: left - 8, y: top - 8, class: "axis", "text-anchor": "end" }, "gold"));
    columns.forEach((name, c) => {
      const x = left + (c + 0.5) * size;
      const place = slanted ? { x: 0, y: 0, transform: `translate(${x - 4} ${top - 8}) rotate(-45)` } : { x, y: top - 8, "text-anchor": "middle" };
      svg.append(draw("text", { class: c < labels.length ? "name" : "name extra", ...place }, cut(name, 14)));
    });
    counts.forEach((row, r) => {
      const total = sum(row);
      const y = top + r * size;
      svg.append(draw("text", { x: left - 8, y: y + size / 2 + 4, class: "name", "text-anchor": "end" }, cut(labels[r], 14)));
      row.forEach((count, c) => {
        const share = total ? count / total : 0;
        const fill = total ? `v${Math.round(12 * share)}` : "none";
        const box = draw("g", { class: `cell ${fill}`, transform: `translate(${left + c * size} ${y})` });
        box.append(draw("rect", { width: size - 1.5, height: size - 1.5, rx: 2 }));
        if (r === c) box.append(draw("rect", { class: "right", x: 1, y: 1, width: size - 3.5, height: size - 3.5, rx: 2 }));
        if (total) box.append(draw("text", { x: size / 2 - 0.75, y: size / 2 + 4, "text-anchor": "middle" }, percent(share)));
        svg.append(box);
      });
    });
    return svg;
  };

  const table = (caption, heads, rows) => {
    const body = make("tbody", "");
    const head = make("tr", "", ...heads.map((name) => { const th = make("th", "", name); th.scope = "col"; return th; }));
    for (const [name, ...values] of rows) {
      const th = make("th", "", name);
      th.scope = "row";
      body.append(make("tr", "", th, ...values.map((value) => make("td", "", String(value)))));
    }
    const found = make("table", "", make("caption", "", caption), make("thead", "", head), body);
    const frame = make("div", "scroll", found);
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", caption);
    return make("details", "", make("summary", "", "As a table"), frame);
  };

  const figure = (title, note, svg, ...after) => {
    const frame = make("div", "scroll", svg);
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", title || note);
    return make("figure", "", make("figcaption", "", title ? make("h4", "", title) : null, make("p", "", note)), frame, ...after);
  };

  // One of the two sides of a comparison: the base (row -1) or a source.
  const sideOf = (part, row) => {
    const scores = part.scores?.[row + 1];
    const name = row < 0 ? "base" : data("matrix-data").sources[row];
    if (row < 0) return { name, row, counts: part.base, lengths: part.baseLengths, answers: part.answers, seeds: 1, scores };
    const cell = part.cells?.[row];
    return { name, row, counts: cell?.counts, lengths: cell?.lengths, answers: cell?.answers, seeds: cell?.seeds ?? 1, scores };
  };

  const answers = (part, a, b) => {
    if (!a.counts || !b.counts) return null;
    const one = ({ name, counts, seeds }) => figure(
      name === "base" ? "Base" : name, `Per cent of each gold class${seeds > 1 ? `, ${seeds} seeds together` : ""}; ${sum(counts.flat())} answers.`,
      confusion(name, part.labels, part.columns, counts),
      table(`${name}: number of answers; rows are the gold class.`, ["gold", ...part.columns], part.labels.map((label, r) => [label, ...counts[r]])),
    );
    return [make("h3", "", "Answers"), make("div", "pair", one(b), one(a))];
  };

  // Histograms one above the other on one axis, with the mean of each as a line.
  const lengths = (part, a, b) => {
    if (!a.lengths) return null;
    const rows = [[b.row < 0 ? "Base" : b.name, b.lengths, "neutral"], [a.name, a.lengths, "adapter"], ["Gold", part.goldLengths, "gold"]].filter((row) => row[1]);
    const edges = part.edges;
    const filled = new Set(rows.flatMap(([, [counts]]) => counts.flatMap((count, bin) => (count ? [bin] : []))));
    if (filled.size < 2) return null;
    const width = 640, left = 110, height = 62, inner = width - left - 12;
    const x = (value) => left + ((Math.min(value, edges.at(-1)) - edges[0]) / (edges.at(-1) - edges[0])) * inner;
    const svg = draw("svg", { class: "figure lengths", role: "img", "aria-label": "Lengths of answers; the same numbers stand in the table below",
      width, height: rows.length * height + 34, viewBox: `0 0 ${width} ${rows.length * height + 34}` });
    const most = Math.max(...rows.flatMap(([, one]) => one[0].map((count) => count / one[2])));
    rows.forEach(([name, [counts, mean, n], style], row) => {
      const floor = (row + 1) * height;
      svg.append(draw("text", { x: left - 10, y: floor - 14, class: "name", "text-anchor": "end" }, name.length > 15 ? `${name.slice(0, 14)}…` : name));
      svg.append(draw("text", { x: left - 10, y: floor - 1, class: "tick", "text-anchor": "end" }, `mean ${mean}`));
      counts.forEach((count, bin) => {
        if (!count) return;
        const high = Math.max(1, (count / n / most) * (height - 14));
        svg.append(draw("rect", { class: `bar-${style}`, x: x(edges[bin]), y: floor - high, width: Math.max(1, x(edges[bin + 1]) - x(edges[bin]) - 1), height: high }));
      });
      svg.append(draw("path", { class: "rule", d: `M${left} ${floor + 0.5}H${width - 12}` }), draw("path", { class: "mean", d: `M${x(mean)} ${floor}v${-height + 10}` }));
    });
    const last = edges.length - 1;
    const shown = [0, Math.round(last / 4), Math.round(last / 2), Math.round((3 * last) / 4), last];
    for (const edge of new Set(shown)) {
      svg.append(draw("text", { x: x(edges[edge]), y: rows.length * height + 18, class: "tick", "text-anchor": edge === 0 ? "start" : edge === last ? "end" : "middle" },
        `${edges[edge]}${edge === last ? " and more" : ""}`));
    }
    const chosen = part.unit === "tokens" ? "Length of the chosen answer" : "Length of the answers";
    return [make("h3", "", chosen), figure("", `Share of answers by length in ${part.unit}; the line is the mean.`, svg,
      table(`Number of answers by length in ${part.unit}.`, ["from", ...rows.map((row) => row[0])],
        edges.slice(0, -1).map((edge, bin) => [String(edge), ...rows.map((row) => row[1][0][bin])])))];
  };

  // What came of an item: won where the first side has the better score. Lists of numbers, or a text of 0, 1 and ?.
  const score = (side, item) => {
    const value = side.scores?.[item];
    return value === undefined || value === null || value === "?" ? NaN : Number(value);
  };
  const better = (column) => data("matrix-data").better[column];
  const outcome = (a, b, item, column) => {
    const change = (score(a, item) - score(b, item)) * better(column);
    if (Number.isNaN(change)) return "unknown";
    if (Math.abs(change) > 1e-9) return change > 0 ? "won" : "lost";
    return typeof a.scores === "string" && typeof b.scores === "string" ? (score(a, item) ? "right" : "wrong") : "same";
  };
  const tally = (a, b, column) => {
    const counts = { won: 0, lost: 0, right: 0, wrong: 0, same: 0, unknown: 0 };
    for (let item = 0; item < (a.scores?.length ?? 0); item += 1) counts[outcome(a, b, item, column)] += 1;
    return counts;
  };
  traitmap.tally = (part, row, other, column) => (part.scores ? tally(sideOf(part, row), sideOf(part, other), column) : null);
  const KINDS = { won: "won", lost: "lost", right: "both right", wrong: "both wrong", same: "the same", unknown: "unknown" };

  const item = (part, place, number, a, b, kind) => {
    const [asked, gold] = part.texts[place] || ["", ""];
    const list = make("dl", "");
    const binary = typeof a.scores === "string" && typeof b.scores === "string";
    const style = (side) => (kind === "won" ? (side === a ? "right" : "wrong") : kind === "lost" ? (side === a ? "wrong" : "right") : kind === "right" || kind === "wrong" ? kind : "");
    const line = (name, value, ink) => list.append(make("dt", "", name), make("dd", ink || "", value || "(nothing)"));
    if (gold) line("gold", gold, "gold");
    for (const side of [b, a]) {
      const answer = side.answers ? part.said[side.answers[place]] : "(not in this file)";
      if (answer || gold) line(side.name, answer, side.answers ? style(side) : "");
    }
    const scores = binary ? "" : `: score ${typeset(String(score(b, number)))} → ${typeset(String(score(a, number)))}`;
    const frame = asked ? make("p", "asked", asked) : null;
    if (frame && asked.length > 300) { frame.tabIndex = 0; frame.setAttribute("role", "group"); frame.setAttribute("aria-label", `Item ${number}`); }
    return make("li", "", frame, list, make("p", "evidence", `Item ${number}, ${KINDS[kind]}${scores}`));
  };

  const AT_ONCE = 10;
  const items = (part, a, b, column) => {
    if (!part.texts || !a.scores || !b.scores) return null;
    const numbers = part.items.length ? part.items : part.texts.map((_, place) => place);
    const all = numbers.map((number, place) => [place, number, outcome(a, b, number, column)]);
    const counts = tally(a, b, column);
    const total = a.scores.length;
    const kinds = Object.keys(KINDS).filter((kind) => counts[kind]);
    const pick = make("select", "");
    pick.append(new Option("all items", ""), ...kinds.map((kind) => new Option(`${KINDS[kind]} (${counts[kind]})`, kind)));
    const find = make("input", "");
    find.type = "search";
    find.placeholder = "words of a question or an answer";
    const list = make("ul", "items");
    const told = make("p", "hint");
    told.setAttribute("role", "status");
    const more = make("button", "more", "Show more");
    more.type = "button";
    let shown = AT_ONCE;
    const wordsOf = ([place]) => [...(part.texts[place] ?? []), ...[a, b].map((side) => (side.answers ? part.said[side.answers[place]] : ""))].join("\n").toLowerCase();
    const draw = () => {
      const kind = pick.value;
      const wanted = find.value.toLowerCase().trim();
      const matching = all.filter((one) => (!kind || one[2] === kind) && (!wanted || wordsOf(one).includes(wanted)));
      list.replaceChildren(...matching.slice(0, shown).map(([place, number, came]) => item(part, place, number, a, b, came)));
      const drawn = all.length < total ? ` of the ${all.length} that are in this file, drawn at random from ${total}` : "";
      told.textContent = `${Math.min(shown, matching.length)} of ${matching.length} matching items${drawn}. Long texts are cut in the middle.`;
      more.hidden = matching.length <= shown;
    };
    const restart = (setting, value) => { shown = AT_ONCE; traitmap.set({ [setting]: value }); draw(); };
    pick.value = kinds.includes(traitmap.get("items")) ? traitmap.get("items") : "";
    find.value = traitmap.get("find");
    pick.addEventListener("change", () => restart("items", pick.value));
    find.addEventListener("input", () => restart("find", find.value));
    more.addEventListener("click", () => { shown += AT_ONCE; draw(); });
    draw();
    const head = make("p", "tally", make("b", "better-ink", `${counts.won} won`), ", ", make("b", "worse-ink", `${counts.lost} lost`),
      `, ${counts.right + counts.wrong + counts.same} the same${counts.unknown ? `, ${counts.unknown} unknown` : ""}, of ${total} items`);
    const seeds = Math.max(a.seeds, b.seeds) > 1 ? " Scores are means over seeds." : "";
    return [make("h3", "", "Items won and lost"), head,
      make("p", "hint", `Won: ${a.name} has the better score, ${b.name} the worse.${seeds}`),
      make("div", "tools", make("label", "pick", make("span", "", "Show"), pick), make("label", "pick wide", make("span", "", "Search"), find)),
      told, list, more];
  };

  const reasons = (cell) => {
    const list = (several) => make("ul", "reasons", ...several.map((words) => make("li", "", words)));
    const found = [];
    if (cell.odd) found.push(list(cell.odd));
    if (cell.reasons?.[0].length) found.push(list(cell.reasons[0]));
    if (cell.reasons?.[1].length) found.push(make("p", "hint", "Also seen, within noise or without a test:"), list(cell.reasons[1]));
    return found.length ? [make("h3", "", "What the answers show"), ...found] : null;
  };

  // Whom an adapter is held against: the base, or any other adapter.
  const beside = (row, other) => {
    const all = data("matrix-data");
    const pick = make("select", "");
    pick.id = "cell-with";
    if (all.based) pick.append(new Option("base", ""));
    all.sources.forEach((name, place) => { if (place !== row) pick.append(new Option(name, name)); });
    pick.value = other < 0 ? "" : all.sources[other];
    pick.addEventListener("change", () => traitmap.set({ with: pick.value }));
    return make("p", "pick beside", make("label", "pick", make("span", "", "Beside"), pick));
  };
  const difference = (part, row, other, column) => {
    const apart = part.apart?.[row + 1]?.[other + 1];
    const all = data("matrix-data");
    const [gain, ...ends] = (apart || "").split(" [");
    if (!gain) return make("p", "hint", "By how much the two differ on the same items is not in this file.");
    const line = make("p", "big", typeset(gain), " ");
    line.append(make("small", "", typeset(`${all.units[column]} ${ends.length ? `[${ends[0]}` : ""} ${all.sources[row]} less ${all.sources[other]}, on the same items`)));
    return line;
  };

  const fill = (row, column, other) => {
    const all = data("matrix-data");
    const told = traitmap.summary(row, column);
    const body = document.getElementById("cell-body");
    document.getElementById("cell-title").textContent = told.title;
    const part = data(`cells-${column}`) ?? {};
    const parts = [make("div", "cell-facts", ...told.parts)];
    if (row >= 0 && all.sources.length > (all.based ? 0 : 1)) parts.push(beside(row, other));
    if (other >= 0) parts.push(difference(part, row, other, column));
    body.replaceChildren(...parts);
    if (row < 0) return;
    const cell = part.cells?.[row];
    if (!cell) body.append(make("p", "hint", "Answers of this cell are not in this file."));
    const [a, b] = [sideOf(part, row), sideOf(part, other)];
    for (const made of [cell && other < 0 ? reasons(cell) : null, answers(part, a, b), lengths(part, a, b), items(part, a, b, column)]) {
      if (made) body.append(make("section", "", ...made));
    }
    traitmap.equip(body);
    traitmap.addSaving(body);
    traitmap.watchEdges(body);
  };

  let returnTo = null;
  traitmap.openCell = (row, column, other = null) => {
    const all = data("matrix-data");
    const name = row < 0 ? "base" : all.sources[row];
    traitmap.set({ cell: [name, all.targets[column]], with: other, items: null, find: null }, { opens: true });
  };

  document.addEventListener("DOMContentLoaded", () => {
    const dialog = document.getElementById("cell");
    const all = data("matrix-data");
    let filled = "";
    const placesOf = () => {
      const [source, target] = [traitmap.get("cell")].flat();
      const row = all.sources.indexOf(source);
      const column = all.targets.indexOf(target);
      const known = column >= 0 && (row >= 0 || (source === "base" && all.based));
      const other = all.sources.indexOf(traitmap.get("with"));
      const least = all.based || row < 0 ? -1 : row === 0 ? 1 : 0;  // without a base another source
      return known ? [row, column, other >= 0 && other !== row ? other : least < all.sources.length ? least : -1] : null;
    };
    traitmap.onState(() => {
      const places = traitmap.get("cell") ? placesOf() : null;
      const now = JSON.stringify(places);
      if (now === filled) return;
      const same = places && filled && JSON.parse(filled)?.slice(0, 2).join() === places.slice(0, 2).join();
      filled = now;
      if (!places) { if (dialog.open) dialog.close(); return; }
      fill(...places);
      if (!dialog.open) {
        returnTo = document.activeElement;
        dialog.showModal();
      }
      if (same) { document.getElementById("cell-with")?.focus(); return; }
      dialog.scrollTop = 0;
      document.getElementById("cell-title").focus({ preventScroll: true });
    });
    document.getElementById("cell-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => {
      filled = "null";
      document.getElementById("cell-body").replaceChildren();
      traitmap.back("cell", "with", "items", "find");
      returnTo?.focus({ preventScroll: true });
    });
  });
})();
