// The matrix: views, orders, seeds and metrics, and the details of the cell that is pointed at.
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
    let layer = data("layer-0");
    let view = all.based ? "gain" : "absolute";
    const bases = all.based ? 1 : 0;  // rows above the first source
    let order = all.clustered;
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
        const marked = view === "gain" && mark === "*";
        box.setAttribute("class", `cell ${style(view, step)}${marked ? " sig" : ""}`);
        const shown = typeset(layer.texts[view][cell]) + (view === "gain" ? signs[mark] || "" : "");
        label.textContent = dense ? (marked ? "•" : "") : shown;
        hatch(box, mark === "~" ? "predicted" : step === null ? "unknown" : "");
      });
      document.querySelectorAll(".legend").forEach((legend) => { legend.hidden = legend.dataset.view !== view; });
    };

    // Slot of each row and column in the order that is shown.
    let slots = {};
    const arrange = (wanted) => {
      order = wanted === "clustered" ? all.clustered : { sources: [...all.sources.keys()], targets: [...all.targets.keys()] };
      slots = { s: new Map(order.sources.map((s, slot) => [s, slot])), t: new Map(order.targets.map((t, slot) => [t, slot])) };
      const x = (t) => all.x[slots.t.get(t)];
      const y = (s) => all.y[s < 0 ? 0 : slots.s.get(s) + 1];
      const move = (node, left, top) => node.setAttribute("transform", `translate(${left} ${top})`);
      boxes.forEach((box, index) => { const [s, t] = place(index); move(box, x(t), y(s)); });
      svg.querySelectorAll(".outlines [data-s]").forEach((node) => move(node, x(Number(node.dataset.t)), y(Number(node.dataset.s))));
      svg.querySelectorAll(".row-names [data-s]").forEach((node) => move(node, all.left - 10, y(Number(node.dataset.s)) + all.cell[1] / 2 + 4));
      svg.querySelectorAll(".column-name").forEach((node) => {
        move(node, x(Number(node.querySelector("[data-t]").dataset.t)) + all.cell[0] / 2, all.top);
      });
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
      if (right < 0 || right >= columns || down < -bases || down >= all.sources.length) return at;
      return ((down < 0 ? -1 : order.sources[down]) + bases) * columns + order.targets[right];
    };
    frame.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (event.key === "Enter" && at >= 0) { event.preventDefault(); open(at); }
      if (!event.key.startsWith("Arrow")) return;
      event.preventDefault();
      visit(at < 0 ? (order.sources[0] + bases) * columns + order.targets[0] : step(event.key), true);
    });
    // The browser itself tells when a cell has been scrolled away from under the pointer.
    addEventListener("scroll", () => { if (at >= 0) settle(boxes[at]); }, { passive: true });
    // Names of the rows stay in sight while a wide matrix is scrolled sideways.
    const rowNames = svg.querySelector(".row-names");
    frame.addEventListener("scroll", () => {
      rowNames.setAttribute("transform", `translate(${frame.scrollLeft} 0)`);
      if (at >= 0) settle(boxes[at]);
    }, { passive: true });

    const chosen = (name, change) => document.querySelectorAll(`input[name="${name}"]`).forEach((input) => {
      input.addEventListener("change", () => { leave(); change(input.value); });
    });
    chosen("view", (value) => { view = value; paint(); });
    chosen("order", arrange);
    arrange("clustered");
    document.getElementById("layer")?.addEventListener("change", (event) => {
      leave();
      layer = data(`layer-${event.target.value}`);
      document.getElementById("layer-note").hidden = all.layers[event.target.value][0] !== "metric";
      paint();
    });
  };

  document.addEventListener("DOMContentLoaded", explore);
})();
