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

  const answers = (source, part, cell) => {
    if (!cell.counts) return null;
    const one = (name, counts, seeds) => figure(
      name, `Per cent of each gold class${seeds > 1 ? `, ${seeds} seeds together` : ""}; ${sum(counts.flat())} answers.`,
      confusion(name, part.labels, part.columns, counts),
      table(`${name}: number of answers; rows are the gold class.`, ["gold", ...part.columns], part.labels.map((label, r) => [label, ...counts[r]])),
    );
    return [make("h3", "", "Answers"), make("div", "pair", one("Base", part.base, 1), one(source, cell.counts, cell.seeds))];
  };

  // Histograms one above the other on one axis, with the mean of each as a line.
  const lengths = (source, part, cell) => {
    if (!cell.lengths) return null;
    const rows = [["Base", part.baseLengths, "neutral"], [source, cell.lengths, "adapter"], ["Gold", part.goldLengths, "gold"]].filter((row) => row[1]);
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

  const item = (part, kind, [number, seed, base, adapter, before, after]) => {
    const [asked, gold] = part.texts[number] || ["", ""];
    const list = make("dl", "");
    const line = (name, value, style) => list.append(make("dt", "", name), make("dd", style || "", value || "(nothing)"));
    if (gold) line("gold", gold, "gold");
    if (base || adapter) { line("base", base, kind === "won" ? "wrong" : "right"); line("adapter", adapter, kind === "won" ? "right" : "wrong"); }
    const binary = new Set([before, after, "0.0", "100.0"]).size === 2 && (base || adapter);
    const scores = binary ? "" : `: score ${typeset(before)} → ${typeset(after)}`;
    const numbers = make("p", "evidence", `Item ${number}${seed === null ? "" : `, seed ${seed}`}${scores}`);
    const frame = asked ? make("p", "asked", asked) : null;
    if (frame && asked.length > 300) frame.tabIndex = 0;
    return make("li", "", frame, list, numbers);
  };

  const items = (part, cell) => {
    const column = (kind, name, count, drawn) => {
      const head = make("h4", kind === "won" ? "better-ink" : "worse-ink", `${name} ${count}`, make("small", "", ` of ${cell.items} items`));
      const note = !count ? "None." : drawn.length < count ? `${drawn.length} of them, drawn at random.` : "All of them.";
      return make("div", "", head, make("p", "hint", note), make("ul", "items", ...drawn.map((one) => item(part, kind, one))));
    };
    return [make("h3", "", "Items won and lost"),
      make("p", "hint", cell.seeds > 1 ? `By the mean score of ${cell.seeds} seeds against the base's. Long texts are cut in the middle.` : "By score against the base's. Long texts are cut in the middle."),
      make("div", "pair", column("won", "Won", cell.won, cell.wonItems), column("lost", "Lost", cell.lost, cell.lostItems))];
  };

  const reasons = (cell) => {
    const list = (several) => make("ul", "reasons", ...several.map((words) => make("li", "", words)));
    const found = [];
    if (cell.odd) found.push(list(cell.odd));
    if (cell.reasons?.[0].length) found.push(list(cell.reasons[0]));
    if (cell.reasons?.[1].length) found.push(make("p", "hint", "Also seen, within noise or without a test:"), list(cell.reasons[1]));
    return found.length ? [make("h3", "", "What the answers show"), ...found] : null;
  };

  const fill = (row, column) => {
    const all = data("matrix-data");
    const told = traitmap.summary(row, column);
    const body = document.getElementById("cell-body");
    document.getElementById("cell-title").textContent = told.title;
    body.replaceChildren(make("div", "cell-facts", ...told.parts));
    const part = data(`cells-${column}`);
    const cell = part?.cells[row];
    if (row < 0) return;
    if (!cell) { body.append(make("p", "hint", "Answers and items of this cell are not in this file.")); return; }
    for (const made of [reasons(cell), answers(all.sources[row], part, cell), lengths(all.sources[row], part, cell), items(part, cell)]) {
      if (made) body.append(make("section", "", ...made));
    }
    traitmap.addSaving(body);
    traitmap.watchEdges(body);
  };

  let returnTo = null;
  traitmap.openCell = (row, column) => {
    const all = data("matrix-data");
    const dialog = document.getElementById("cell");
    fill(row, column);
    const name = row < 0 ? "base" : all.sources[row];
    history.replaceState(null, "", `#cell=${encodeURIComponent(name)}/${encodeURIComponent(all.targets[column])}`);
    if (!dialog.open) {
      returnTo = document.activeElement;
      dialog.showModal();
    }
    dialog.scrollTop = 0;
    document.getElementById("cell-title").focus({ preventScroll: true });
  };

  const fromAddress = () => {
    const found = /^#cell=([^/]*)\/(.*)$/.exec(location.hash);
    if (!found) return;
    const all = data("matrix-data");
    let source, target;
    try { [source, target] = found.slice(1).map(decodeURIComponent); } catch { return; }
    const row = all.sources.indexOf(source);
    const column = all.targets.indexOf(target);
    if (column >= 0 && (row >= 0 || (source === "base" && all.based))) traitmap.openCell(row, column);
  };

  document.addEventListener("DOMContentLoaded", () => {
    const dialog = document.getElementById("cell");
    document.getElementById("cell-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => {
      document.getElementById("cell-body").replaceChildren();
      history.replaceState(null, "", location.pathname + location.search);
      returnTo?.focus({ preventScroll: true });
    });
    addEventListener("hashchange", fromAddress);
    fromAddress();
  });
})();
