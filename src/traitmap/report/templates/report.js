"use strict";
// Theme first, before anything is painted; the rest when the page is there. Text goes in as text only.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const themes = ["auto", "light", "dark"];
  const recall = () => { try { return localStorage.getItem("traitmap-theme"); } catch { return null; } };
  const keep = (theme) => { try { localStorage.setItem("traitmap-theme", theme); } catch { /* a private window */ } };
  let theme = themes.includes(recall()) ? recall() : "auto";
  const apply = () => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (!button) return;
    button.querySelector("span").textContent = theme;
    button.setAttribute("aria-label", `Theme: ${theme === "auto" ? "as the system" : theme}`);
  };
  apply();

  const make = (tag, text, style) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (style) node.className = style;
    return node;
  };

  const explore = (data) => {
    const frame = document.getElementById("matrix-frame");
    const svg = frame.querySelector("svg");
    const panel = document.getElementById("details");
    const spoken = document.getElementById("spoken");
    const columns = data.targets.length;
    const boxes = [...svg.querySelectorAll(".cell")];
    const places = new Map(boxes.map((box, index) => [box, index]));
    const names = { s: new Map(), t: new Map() };
    svg.querySelectorAll("text[data-s]").forEach((node) => names.s.set(Number(node.dataset.s), node));
    svg.querySelectorAll("text[data-t]").forEach((node) => names.t.set(Number(node.dataset.t), node));
    const cursor = document.createElementNS(svg.namespaceURI, "rect");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("rx", "3");
    let at = -1;
    let pinned = false;

    // Boxes stand row by row, the base first: index -> row (base is -1) and column.
    const place = (index) => [Math.floor(index / columns) - 1, index % columns];

    const show = (view) => {
      const dense = svg.classList.contains("dense");
      boxes.forEach((box, index) => {
        const text = box.querySelector("text");
        if (index < columns) {
          const style = view === "absolute" ? data.base.absolute[index] : "";
          const unknown = data.base.absolute[index] === "none" ? " none" : "";
          box.setAttribute("class", `cell base${style && style !== "none" ? ` own ${style}` : ""}${unknown}`);
          return;
        }
        const [style, shown] = data.views[view][index - columns];
        const marked = view === "gain" && shown.endsWith("•");
        box.setAttribute("class", `cell ${style}${marked ? " sig" : ""}`);
        text.textContent = dense ? (marked ? "•" : "") : shown;
        const overlay = box.querySelector(".overlay");
        if (overlay) overlay.style.display = style === "none" || overlay.getAttribute("fill").includes("predicted") ? "" : "none";
      });
      document.querySelectorAll(".legend").forEach((legend) => { legend.hidden = legend.dataset.view !== view; });
    };

    const facts = (row, column) => {
      const target = data.targets[column];
      const known = [["Base", target.base], ["Base unparsed", target.unparsed], ["Chance", target.chance],
        ["Commonest answer", target.majority], ["Metric", target.metric], ["Direction", target.direction]];
      if (row < 0) return known;
      const cell = data.cells[row * columns + column];
      return [["Adapter", cell.value], ["Base", target.base], ["p (paired)", cell.p], ["q (over the matrix)", cell.q],
        ["Items", cell.n], ["Unparsed", cell.unparsed], ["Base unparsed", target.unparsed], ["Chance", target.chance],
        ["Commonest answer", target.majority], ["Gain by seed", cell.seeds], ["Items in training texts", cell.overlap], ["Metric", target.metric],
        ["Direction", target.direction]];
    };

    const fill = (row, column) => {
      const target = data.targets[column];
      const cell = row < 0 ? {} : data.cells[row * columns + column];
      const source = row < 0 ? "base" : data.sources[row];
      panel.replaceChildren(make("p", `${source} → ${target.name}`, "route"));
      if (cell.gain) {
        const big = make("p", cell.gain, "big");
        big.append(" ", make("small", target.unit + (cell.interval ? ` ${cell.interval}` : "")));
        panel.append(big);
      }
      if (cell.status) panel.append(make("p", cell.status, "big quiet"));
      const list = make("dl");
      for (const [name, value] of facts(row, column)) if (value) list.append(make("dt", name), make("dd", value));
      panel.append(list);
      if (cell.reason) panel.append(make("p", cell.reason, "reason"));
      return `${source} on ${target.name}: ${cell.gain ? `gain ${cell.gain} ${target.unit} ${cell.interval || ""}, ` : ""}`
        + facts(row, column).filter((pair) => pair[1]).map((pair) => pair.join(" ")).join(", ")
        + (cell.status ? `, ${cell.status}` : "") + (cell.reason ? `, ${cell.reason}` : "");
    };

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
      at = -1;
      pinned = false;
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
      names.s.get(row).classList.add("on");
      names.t.get(column).classList.add("on");
      const words = fill(row, column);
      if (aloud) {
        box.scrollIntoView({ block: "nearest", inline: "nearest" });
        spoken.textContent = words;
      }
      settle(box);
    };

    const boxOf = (event) => places.get(event.target.closest(".cell"));
    svg.addEventListener("pointerover", (event) => {
      const index = boxOf(event);
      if (pinned || event.pointerType === "touch") return;
      if (index === undefined) leave(); else visit(index, false);
    });
    svg.addEventListener("pointerleave", () => { if (!pinned) leave(); });
    svg.addEventListener("click", (event) => {
      const index = boxOf(event);
      const again = pinned && index === at;
      leave();
      if (index === undefined || again) return;
      visit(index, false);
      pinned = true;
    });
    document.addEventListener("click", (event) => { if (!svg.contains(event.target)) leave(); });
    frame.addEventListener("blur", leave);
    frame.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
      if (event.key === "Escape") leave();
      if (!(event.key in steps)) return;
      event.preventDefault();
      const step = steps[event.key];
      const next = at < 0 ? columns : at + step;
      const sideways = Math.abs(step) === 1 && at >= 0 && Math.floor(next / columns) !== Math.floor(at / columns);
      if (next >= 0 && next < boxes.length && !sideways) visit(next, true);
      pinned = at >= 0;
    });
    addEventListener("scroll", () => { if (at >= 0) { if (pinned) settle(boxes[at]); else leave(); } }, { passive: true });
    // Names of the rows stay in sight while a wide matrix is scrolled sideways.
    const rowNames = svg.querySelector(".row-names");
    frame.addEventListener("scroll", () => {
      rowNames.setAttribute("transform", `translate(${frame.scrollLeft} 0)`);
      if (at >= 0) settle(boxes[at]);
    }, { passive: true });
    document.querySelectorAll('input[name="view"]').forEach((input) => {
      input.addEventListener("change", () => show(input.value));
      if (input.checked) show(input.value);
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      keep(theme);
      apply();
    });
    explore(JSON.parse(document.getElementById("matrix-data").textContent));
    addEventListener("beforeprint", () => document.querySelectorAll("#conditions details").forEach((one) => { one.open = true; }));
  });
})();
