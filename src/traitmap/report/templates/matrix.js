// The matrix: views, orders, filters, means, seeds and metrics, and the details of the cell that is pointed at.
(() => {
  const { make, draw, data, typeset } = traitmap;

  const explore = () => {
    const all = data("matrix-data");
    const frame = document.getElementById("matrix-frame");
    const svg = frame.querySelector("svg");
    const panel = document.getElementById("details");
    const spoken = document.getElementById("spoken");
    const columns = all.targets.length;
    const dense = svg.classList.contains("dense");
    const boxes = [...svg.querySelectorAll(".cell")];
    const places = new Map(boxes.map((box, index) => [box, index]));
    const cursor = draw("rect", { class: "cursor", rx: 3 });
    const usual = all.based ? "gain" : "absolute";
    let layer = data("layer-0");
    let layerNumber = 0;
    let view = usual;
    let clean = false;
    const bases = all.based ? 1 : 0;  // rows above the first source
    let order = all.clustered;  // places of the sources and targets that are shown, in their order
    let at = -1;

    // Boxes stand in the study's order, the base first, where one is known: index -> row (base is -1), column.
    const place = (index) => [Math.floor(index / columns) - bases, index % columns];
    const text = (values, index) => (Array.isArray(values) ? values[index] : values) || "";
    const style = (kind, step) => {
      if (step === null) return "none";
      if (kind === "absolute") return `v${step}`;
      return step === 0 ? "g0" : `g${step < 0 ? "m" : "p"}${Math.abs(step)}`;
    };
    const signs = { "*": " •", "~": " ~" };
    // The verdict on a cell: its kind, sign, and whether it is something else than skill. Of the study's own metric only.
    const kindOf = (cell) => all.kinds[all.verdicts.charCodeAt(cell) - 97];
    const quiet = new Set(["within noise", "unknown", "in-domain"]);
    const signOf = (cell) => {
      const mark = layer.marks[cell];
      if (layerNumber || mark === "~" || !all.based) return signs[mark] ?? "";
      const [kind, glyph] = kindOf(cell);
      return kind === "unknown" && mark === "*" ? " ?" : quiet.has(kind) ? "" : ` ${glyph}`;
    };
    const veiled = (cell) => clean && kindOf(cell)[2];

    const hatch = (box, name) => {
      let overlay = box.querySelector(".overlay");
      if (!name) { overlay?.remove(); return; }
      if (!overlay) {
        overlay = box.querySelector("rect").cloneNode();
        overlay.setAttribute("class", "overlay");
        box.querySelector("rect").after(overlay);
      }
      overlay.setAttribute("fill", `url(#${svg.id}-${name})`);
    };

    const paint = () => {
      boxes.forEach((box, index) => {
        const label = box.querySelector("text");
        if (index < bases * columns) {
          const step = layer.base.steps[index];
          const own = view === "absolute" && step !== null ? ` own ${style("absolute", step)}` : "";
          box.setAttribute("class", `cell base${own}${step === null ? " none" : ""}`);
          label.textContent = dense ? "" : typeset(layer.base.texts[index]);
          hatch(box, step === null ? "unknown" : "");
          return;
        }
        const cell = index - bases * columns;
        const mark = layer.marks[cell];
        const step = layer.steps[view][cell];
        const sign = view === "gain" || clean ? signOf(cell) : "";
        const hidden = veiled(cell);
        const marked = view === "gain" && mark !== "~" && (mark === "*" || sign !== "");
        box.setAttribute("class", `cell ${hidden ? "none veiled" : style(view, step)}${marked ? " sig" : ""}`);
        label.textContent = dense || hidden ? sign.trim() : typeset(layer.texts[view][cell]) + sign;
        hatch(box, mark === "~" ? "predicted" : step === null ? "unknown" : "");
      });
      document.querySelectorAll(".legend").forEach((legend) => { legend.hidden = legend.dataset.view !== view; });
    };
    // Numbers as they are shown, better upwards.
    const amount = (cell) => {
      const value = view === "z" ? parseFloat(layer.texts.z[cell]) : layer.numbers[view][cell] ?? NaN;
      return value * (view === "absolute" ? 1 : all.better[cell % columns]);
    };
    const counts = (cell) => {
      const [s, t] = [Math.floor(cell / columns), cell % columns];
      return Number.isFinite(amount(cell)) && all.sources[s] !== all.targets[t] && layer.marks[cell] !== "~" && !veiled(cell);
    };
    const mean = (cells) => {
      const values = cells.filter(counts).map(amount);
      return values.length ? { value: sum(values) / values.length, n: values.length, low: Math.min(...values), high: Math.max(...values) } : null;
    };
    const sum = (values) => values.reduce((total, one) => total + one, 0);
    // A row is averaged over targets of one unit alone: points where there are some.
    const alike = () => {
      if (view === "z") return new Set(all.targets.keys());
      const unit = all.units.includes("points") ? "points" : all.units[0];
      const places = [...all.targets.keys()].filter((t) => all.units[t] === unit && (view === "gain" || all.better[t] > 0));
      return new Set(all.units.includes("points") || new Set(all.units).size === 1 ? places : []);
    };
    const rowMean = (s) => {
      const unit = alike();
      return mean(order.targets.filter((t) => unit.has(t)).map((t) => s * columns + t));
    };
    const columnMean = (t) => mean(order.sources.map((s) => s * columns + t));

    // Slot of each row and column in the order that is shown. Orders: clustered, study, name, mean, down:NAME, up:NAME.
    let slots = {};
    const ordered = (side, wanted) => {
      const names = all[side];
      const [other, cellOf] = side === "sources" ? ["targets", (s, t) => s * columns + t] : ["sources", (t, s) => s * columns + t];
      const [, way, by] = /^(down|up):(.*)$/s.exec(wanted) ?? [];
      const places = [...all.clustered[side]];
      const last = (a, b) => (Number.isNaN(a) ? 1 : 0) - (Number.isNaN(b) ? 1 : 0);
      const ranked = (value, down) => {
        const values = new Map(places.map((place) => [place, value(place)]));
        return places.sort((p, q) => {
          const [a, b] = [values.get(p), values.get(q)];
          return last(a, b) || (down ? b - a : a - b) || p - q;
        });
      };
      if (wanted === "study") return places.sort((a, b) => a - b);
      if (wanted === "name") return places.sort((a, b) => names[a].localeCompare(names[b], undefined, { numeric: true }));
      if (wanted === "mean") return ranked((place) => (side === "sources" ? rowMean(place) : columnMean(place))?.value ?? NaN, true);
      const key = all[other].indexOf(by);
      if (way && key >= 0) {
        const better = side === "sources" && view === "absolute" ? all.better[key] : 1;
        return ranked((place) => { const cell = cellOf(place, key); return veiled(cell) ? NaN : amount(cell) * better; }, way === "down");
      }
      return places;
    };
    const move = (node, left, top) => node.setAttribute("transform", `translate(${left} ${top})`);
    const show = (node, shown) => { node.style.display = shown ? "" : "none"; };
    const firstY = all.y[1] ?? all.y[0];  // of the first source; places are regular
    const rowY = (slot) => (slot < 0 ? all.y[0] : firstY + slot * all.cell[1]);
    const columnX = (slot) => all.left + slot * all.cell[0];
    const arrange = () => {
      const matching = (side) => (place) => traitmap.matches(all[side][place], all.groups[side][place], side);
      const shown = { sources: all.clustered.sources.filter(matching("sources")), targets: all.clustered.targets.filter(matching("targets")) };
      order = shown;  // what means are of
      const sources = ordered("sources", traitmap.get("rows")).filter((s) => shown.sources.includes(s));
      const targets = ordered("targets", traitmap.get("columns")).filter((t) => shown.targets.includes(t));
      order = { sources, targets };
      slots = { s: new Map(sources.map((s, slot) => [s, slot])), t: new Map(targets.map((t, slot) => [t, slot])) };
      const has = (s, t) => (s < 0 || slots.s.has(s)) && slots.t.has(t);
      const place2 = (node, s, t) => { show(node, has(s, t)); if (has(s, t)) move(node, columnX(slots.t.get(t)), rowY(s < 0 ? -1 : slots.s.get(s))); };
      boxes.forEach((box, index) => place2(box, ...place(index)));
      svg.querySelectorAll(".outlines [data-s]").forEach((node) => place2(node, Number(node.dataset.s), Number(node.dataset.t)));
      svg.querySelectorAll(".row-names [data-s]").forEach((node) => {
        const s = Number(node.dataset.s);
        show(node, s < 0 || slots.s.has(s));
        if (s < 0 || slots.s.has(s)) move(node, all.left - 10, rowY(s < 0 ? -1 : slots.s.get(s)) + all.cell[1] / 2 + 4);
      });
      svg.querySelectorAll(".column-name").forEach((node) => {
        const t = Number(node.querySelector("[data-t]").dataset.t);
        show(node, slots.t.has(t));
        if (slots.t.has(t)) move(node, columnX(slots.t.get(t)) + all.cell[0] / 2, all.top);
      });
      summarise();
    };

    // Means beside and beneath what is shown, and the size of the drawing.
    const size = { right: svg.viewBox.baseVal.width - columnX(columns), bottom: svg.viewBox.baseVal.height - rowY(all.sources.length) };
    const averages = draw("g", { class: "means" });
    svg.querySelector(".row-names").before(averages);
    const summarise = () => {
      averages.replaceChildren();
      const headings = svg.querySelector(".column-names");
      headings.querySelector(".mean-name")?.remove();
      const wide = Math.max(all.cell[0], 46);
      const high = dense ? 40 : Math.max(all.cell[1], 16);
      const [right, below] = [columnX(order.targets.length) + 10, rowY(order.sources.length) + 10];
      const digits = (t) => (view === "z" ? 1 : all.digits[t]);
      const text = (value, t) => (view === "absolute" ? value.toFixed(digits(t)) : `${value > 0 ? "+" : ""}${value.toFixed(digits(t))}`).replace("-", "−");
      const entry = (x, y, width, height, found, t) => {
        if (!found) return;
        const [middle, level] = [x + width / 2, y + height / 2 + 4];
        const upright = dense && height === high ? { transform: `rotate(-90 ${middle} ${level})`, x: middle, y: level + 4 } : { x: middle, y: level };
        const label = draw("text", { class: "mean", ...upright, "text-anchor": "middle" }, text(found.value, t));
        label.append(draw("title", {}, `mean of ${found.n}: ${text(found.value, t)}, from ${text(found.low, t)} to ${text(found.high, t)}`));
        averages.append(label);
      };
      const unit = [...alike()];
      const rows = unit.length > 1 && order.targets.length > 1;
      const below_ = order.sources.length > 1;
      if (rows) {
        headings.append(draw("text", { class: "name mean-name", x: right + wide / 2, y: all.top - 9, "text-anchor": "middle" }, "mean"));
        order.sources.forEach((s, slot) => entry(right, rowY(slot), wide, all.cell[1], rowMean(s), unit[0]));
      }
      if (below_) order.targets.forEach((t, slot) => {
        const [s, x] = [columnMean(t), columnX(slot)];
        entry(x, below, all.cell[0], high, s && view !== "absolute" ? { ...s, value: s.value * all.better[t], low: s.low * all.better[t], high: s.high * all.better[t] } : s, t);
      });
      const names = svg.querySelector(".row-names");
      names.querySelector(".mean-name")?.remove();
      if (below_) names.append(draw("text", { class: "name mean-name", x: all.left - 10, y: below + high / 2 + 4, "text-anchor": "end" }, "mean"));
      const width = columnX(order.targets.length) + Math.max(size.right, rows ? wide + 14 : 0);
      const height = rowY(order.sources.length) + size.bottom + (below_ ? high + 12 : 0);
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("width", width);
      svg.setAttribute("height", height);
      names.querySelector(".backdrop")?.setAttribute("height", height);
      document.getElementById("matrix-empty").hidden = order.sources.length > 0 && order.targets.length > 0;
      means(text);
    };
    // The same means in the table of the matrix: a last column and a row beneath.
    const table = document.getElementById("gains-table");
    if (table) {
      const head = make("th", "mean", "mean");
      head.scope = "col";
      table.tHead.rows[0].append(head);
      [...table.tBodies[0].rows].forEach((row) => row.append(make("td", "mean")));
      table.append(make("tfoot"));
    }
    const means = (text) => {
      if (!table) return;
      const own = view === usual && !layerNumber;
      const unit = [...alike()];
      const words = (found, t) => (found && own ? text(found.value, t) : "–");
      for (const row of table.tBodies[0].rows) {
        const s = all.sources.indexOf(row.dataset.name);
        row.querySelector("td.mean").textContent = s < 0 ? "" : words(unit.length > 1 ? rowMean(s) : null, unit[0]);
      }
      const name = make("th", "", "mean");
      name.scope = "row";
      const foot = make("tr", "", name, ...all.targets.map((_, t) => {
        const found = columnMean(t);
        const cell = make("td", "mean", words(found && view === "gain" ? { value: found.value * all.better[t] } : found, t));
        cell.hidden = !slots.t.has(t);
        return cell;
      }), make("td", ""));
      table.tFoot.replaceChildren(foot);
    };

    const facts = (row, column) => {
      const base = (name) => text(layer.base.facts[name], column);
      const target = (name) => text(layer.targets[name], column);
      const last = [["Chance", base("chance")], ["Commonest answer", base("majority")], ["Metric", target("metric")],
        ["Direction", target("direction")], ["Of its items", base("caveats")]];
      if (row < 0) return [["Base", base("value")], ["Base unparsed", base("unparsed")], ...last];
      const own = (name) => text(layer.facts[name], row * columns + column);
      return [[all.based ? "Adapter" : "Score", own("value")], ["Base", all.based ? base("value") : ""], ["p (paired)", own("p")], ["q (over the matrix)", own("q")],
        ["Items", own("n")], ["Unparsed", own("unparsed")], ["Base unparsed", base("unparsed")], ["Gain by seed", own("seeds")],
        ["Verdict", layerNumber || !all.based ? "" : kindOf(row * columns + column).slice(0, 2).reverse().join(" ")],
        ["Items in training texts", own("overlap")], ["Source", all.variations[row] ? `varied from ${all.variations[row]}` : ""], ...last];
    };

    // Everything that is known of a cell in words: for the panel that follows the pointer, for the dialog, for the ear.
    const summary = (row, column) => {
      const source = row < 0 ? "base" : all.sources[row];
      const cell = row * columns + column;
      const own = (name) => (row < 0 ? "" : text(layer.facts[name], cell));
      const unit = text(layer.targets.unit, column);
      const gain = row < 0 || layer.marks[cell] === "?" ? "" : typeset(layer.texts.gain[cell]);
      const parts = [];
      if (gain) {
        const big = make("p", "big", gain, " ");
        big.append(make("small", "", typeset(`${unit} ${own("interval")}`)));
        parts.push(big);
      }
      if (own("status")) parts.push(make("p", "big quiet", own("status")));
      const list = make("dl");
      const known = facts(row, column).filter((pair) => pair[1]);
      for (const [name, value] of known) list.append(make("div", "", make("dt", "", name), make("dd", "", typeset(value))));
      parts.push(list);
      if (row >= 0 && !layerNumber && all.whys[cell]) parts.push(make("p", "reason", typeset(all.whys[cell])));
      if (own("reason")) parts.push(make("p", "reason", own("reason")));
      const words = `${source} on ${all.targets[column]}: ${gain ? `gain ${gain} ${unit} ${own("interval")}, ` : ""}`
        + known.map((pair) => pair.join(" ")).join(", ") + (own("status") ? `, ${own("status")}` : "")
        + (own("reason") ? `, ${own("reason")}` : "");
      return { title: `${source} → ${all.targets[column]}`, parts, words: typeset(words) };
    };
    traitmap.summary = summary;

    const settle = (box) => {
      const around = box.getBoundingClientRect();
      panel.hidden = false;
      const size = panel.getBoundingClientRect();
      const right = around.right + 12 + size.width < innerWidth;
      const left = right ? around.right + 12 : Math.max(8, around.left - size.width - 12);
      const top = Math.min(Math.max(8, around.top - 30), Math.max(8, innerHeight - size.height - 8));
      panel.style.left = `${left}px`;
      panel.style.top = `${top}px`;
    };

    const leave = () => {
      if (at < 0 && panel.hidden) return;
      at = -1;
      panel.hidden = true;
      cursor.remove();
      svg.querySelectorAll(".on").forEach((node) => node.classList.remove("on"));
    };

    const visit = (index, aloud) => {
      if (index === at && !panel.hidden) return;
      leave();
      at = index;
      const [row, column] = place(index);
      const box = boxes[index];
      const shape = box.querySelector("rect");
      for (const name of ["width", "height"]) cursor.setAttribute(name, shape.getAttribute(name));
      cursor.setAttribute("transform", box.getAttribute("transform"));
      svg.querySelector(".grid").append(cursor);
      svg.querySelector(`.row-names [data-s="${row}"]`).classList.add("on");
      svg.querySelector(`.column-names [data-t="${column}"]`).classList.add("on");
      const told = summary(row, column);
      panel.replaceChildren(make("p", "route", told.title), ...told.parts);
      if (aloud) {
        box.scrollIntoView({ block: "nearest", inline: "nearest" });
        spoken.textContent = told.words;
      }
      settle(box);
    };

    const open = (index) => {
      const [row, column] = place(index);
      leave();
      traitmap.openCell(row, column);
    };

    const boxOf = (event) => places.get(event.target.closest(".cell"));
    svg.addEventListener("pointerover", (event) => {
      if (event.pointerType === "touch") return;
      const index = boxOf(event);
      if (index === undefined) leave(); else visit(index, false);
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("click", (event) => {
      const index = boxOf(event);
      if (index !== undefined) open(index);
    });
    frame.addEventListener("blur", leave);
    const step = (key) => {
      const [row, column] = place(at);
      let down = (row < 0 ? -1 : slots.s.get(row));
      let right = slots.t.get(column);
      if (key === "ArrowRight") right += 1;
      if (key === "ArrowLeft") right -= 1;
      if (key === "ArrowDown") down += 1;
      if (key === "ArrowUp") down -= 1;
      if (right < 0 || right >= order.targets.length || down < -bases || down >= order.sources.length) return at;
      return ((down < 0 ? -1 : order.sources[down]) + bases) * columns + order.targets[right];
    };
    frame.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (event.key === "Enter" && at >= 0) { event.preventDefault(); open(at); }
      if (!event.key.startsWith("Arrow")) return;
      event.preventDefault();
      if (!order.sources.length || !order.targets.length) return;
      visit(at < 0 ? (order.sources[0] + bases) * columns + order.targets[0] : step(event.key), true);
    });
    // The browser itself tells when a cell has been scrolled away from under the pointer.
    addEventListener("scroll", () => { if (at >= 0) settle(boxes[at]); }, { passive: true });
    // Names of the rows and columns stay in sight while a large matrix is scrolled.
    const rowNames = svg.querySelector(".row-names");
    const columnNames = svg.querySelector(".column-names");
    const shade = (width, height, x = 0) => draw("rect", { class: "backdrop", x, y: 0, width, height });
    columnNames.prepend(shade(columnX(columns) + 400, all.top - 2));
    const corner = draw("g", { class: "corner" }, shade(all.left - 3, all.top - 2));
    svg.append(columnNames, corner);
    frame.addEventListener("scroll", () => {
      rowNames.setAttribute("transform", `translate(${frame.scrollLeft} 0)`);
      columnNames.setAttribute("transform", `translate(0 ${frame.scrollTop})`);
      corner.setAttribute("transform", `translate(${frame.scrollLeft} ${frame.scrollTop})`);
      if (at >= 0) settle(boxes[at]);
    }, { passive: true });

    // A click on a name orders the other side by it: best first, worst first, as before.
    const turned = (setting, name) => {
      const now = traitmap.get(setting);
      traitmap.set({ [setting]: now === `down:${name}` ? `up:${name}` : now === `up:${name}` ? "" : `down:${name}` });
    };
    columnNames.addEventListener("click", (event) => {
      const name = event.target.closest("[data-t]");
      if (name) turned("rows", all.targets[Number(name.dataset.t)]);
    });
    rowNames.addEventListener("click", (event) => {
      const name = event.target.closest("[data-s]");
      if (name && Number(name.dataset.s) >= 0) turned("columns", all.sources[Number(name.dataset.s)]);
    });

    traitmap.point = (row, column, box) => {
      if (row === null) { panel.hidden = true; return; }
      const told = summary(row, column);
      panel.replaceChildren(make("p", "route", told.title), ...told.parts);
      settle(box);
    };

    const settings = ["view", "clean", "layer", "rows", "columns", "sources", "sources-group", "targets", "targets-group"];
    let before = null;
    traitmap.onState(() => {
      const now = JSON.stringify(settings.map(traitmap.get));
      if (now === before) return;
      before = now;
      leave();
      view = ["gain", "absolute", "z"].includes(traitmap.get("view")) && (all.based || traitmap.get("view") !== "gain") ? traitmap.get("view") : usual;
      clean = traitmap.get("clean") === "1" && all.based;
      layerNumber = all.layers[Number(traitmap.get("layer"))] ? Number(traitmap.get("layer")) : 0;
      layer = data(`layer-${layerNumber}`);
      const note = document.getElementById("layer-note");
      if (note) note.hidden = all.layers[layerNumber][0] !== "metric";
      paint();
      arrange();
      for (const setting of ["rows", "columns"]) {  // the list has every name once
        const list = document.getElementById(`order-${setting}`);
        if (list && traitmap.get(setting).startsWith("up:")) list.value = traitmap.get(setting).replace("up:", "down:");
      }
    });
  };

  document.addEventListener("DOMContentLoaded", explore);
})();
