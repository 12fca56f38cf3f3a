// Two side by side on every target, and one card at a time where there are many.
(() => {
  const { make, data, typeset } = traitmap;

  const compare = () => {
    const all = data("matrix-data");
    const frame = document.getElementById("compare");
    if (!frame) return;
    const layer = data("layer-0");
    const columns = all.targets.length;
    const names = all.based ? ["base", ...all.sources] : all.sources;
    const picks = [document.getElementById("compare-first"), document.getElementById("compare-second")];
    picks.forEach((pick) => pick.append(...names.map((name) => new Option(name, name))));
    const usual = [all.sources[0], names[0] === all.sources[0] ? names[1] : names[0]];
    const rowOf = (name) => (all.based && name === "base" ? -1 : all.sources.indexOf(name));
    const value = (row, t) => (row < 0 ? layer.numbers.base[t] : layer.numbers.absolute[row * columns + t]);
    const shownValue = (row, t) => typeset((row < 0 ? layer.base.texts[t] : layer.texts.absolute[row * columns + t]) || "–");
    const cell = (tag, text, small) => { const node = make(tag, "", text); if (small) node.append(make("small", "", small)); return node; };

    const draw = (first, second) => {
      const [a, b] = [rowOf(first), rowOf(second)];
      const head = make("tr", "", ...["target", first, second, "difference", "won", "lost"].map((name) => { const th = make("th", "", name); th.scope = "col"; return th; }));
      const rows = [...all.targets.keys()].filter((t) => traitmap.matches(all.targets[t], all.groups.targets[t], "targets")).map((t) => {
        const part = data(`cells-${t}`) ?? {};
        const [apart, ...ends] = typeset(part.apart?.[a + 1]?.[b + 1] ?? "").split(" [");
        const [x, y] = [value(a, t), value(b, t)];
        const plain = x === null || y === null || x === undefined || y === undefined ? "–" : `${x > y ? "+" : ""}${(x - y).toFixed(all.digits[t])}`.replace("-", "−");
        const counts = traitmap.tally(part, a, b, t);
        const name = make("th", "");
        name.scope = "row";
        const link = make("a", "", all.targets[t]);
        link.href = "#cell";
        const [row, other] = a < 0 ? [b, a] : [a, b];
        link.addEventListener("click", (event) => { event.preventDefault(); traitmap.openCell(row, t, other < 0 ? null : all.sources[other]); });
        name.append(link, ...(all.better[t] < 0 ? [" ↓"] : []));
        return make("tr", "", name, cell("td", shownValue(a, t)), cell("td", shownValue(b, t)), cell("td", apart || plain, ends.length ? `[${ends[0]}` : ""),
          cell("td", counts ? String(counts.won) : "–"), cell("td", counts ? String(counts.lost) : "–"));
      });
      const caption = `${first} beside ${second}: scores on each target, the difference with its 95 % interval on the same items where these are known, and the items on which ${first} has the better score, or the worse.`;
      const table = make("table", "", make("caption", "", caption), make("thead", "", head), make("tbody", "", ...rows));
      table.id = "compare-table";
      const scroll = make("div", "scroll", table);
      scroll.tabIndex = 0;
      scroll.setAttribute("role", "group");
      scroll.setAttribute("aria-label", `${first} beside ${second}`);
      document.getElementById("compare-body").replaceChildren(scroll);
      traitmap.equip(frame);
    };
    let drawn = "";
    const refresh = () => {
      const wanted = [traitmap.get("compare")].flat();
      const pair = wanted.length === 2 && wanted.every((name) => names.includes(name)) ? wanted : null;
      if (pair && !frame.open) frame.open = true;
      const now = JSON.stringify([frame.open, pair, traitmap.get("targets"), traitmap.get("targets-group")]);
      if (now === drawn) return;
      drawn = now;
      const [first, second] = pair ?? usual;
      picks[0].value = first;
      picks[1].value = second;
      if (frame.open) draw(first, second);
    };
    picks.forEach((pick) => pick.addEventListener("change", () => traitmap.set({ compare: picks.map((one) => one.value) })));
    frame.addEventListener("toggle", () => {
      if (frame.open) traitmap.set({ compare: picks.map((one) => one.value) });
      else if (traitmap.get("compare")) traitmap.set({ compare: null });
    });
    traitmap.onState(refresh);
  };

  // Many cards: one is shown at a time, and a list names them all.
  const MOST_CARDS = 6;
  const CARDS = [["#adapters .cards.figures", "adapter", "Adapter"], ["#which .rankings", "target", "Target"]];
  const choose = () => CARDS.forEach(([place, setting, label]) => {
    const list = [...document.querySelectorAll(place)].sort((a, b) => b.children.length - a.children.length)[0];
    const cards = [...(list?.children ?? [])];
    const names = cards.map((card) => card.querySelector("h3, h4").firstChild.textContent.trim());
    if (cards.length <= MOST_CARDS) return;
    const pick = make("select", "");
    pick.append(...names.map((name) => new Option(name, name)), new Option(`all ${cards.length}`, "*"));
    const step = (by, sign, label) => {
      const button = make("button", "step", sign);
      button.type = "button";
      button.setAttribute("aria-label", label);
      button.addEventListener("click", () => traitmap.set({ [setting]: names[(Math.max(0, names.indexOf(pick.value)) + by + names.length) % names.length] }));
      return button;
    };
    pick.addEventListener("change", () => traitmap.set({ [setting]: pick.value }));
    list.before(make("div", "tools one-of", make("label", "pick", make("span", "", label), pick), step(-1, "←", "the one before"), step(1, "→", "the next one")));
    list.classList.add("chosen-one");
    traitmap.onState(() => {
      const wanted = traitmap.get(setting);
      const now = wanted === "*" || names.includes(wanted) ? wanted : names[0];
      pick.value = now;
      cards.forEach((card, at) => {
        card.hidden = now !== "*" && names[at] !== now;
        if (card.matches("details")) card.open = names[at] === now;
      });
    });
  });

  // The small matrix of the first screen: its cells are those of the large one.
  const small = () => {
    const grid = document.getElementById("small-matrix");
    if (!grid) return;
    const all = data("matrix-data");
    const cells = [...grid.querySelectorAll("[data-cell]")];
    const placeOf = (node) => node.dataset.cell.split(" ").map(Number);
    grid.addEventListener("click", (event) => {
      const node = event.target.closest("[data-cell]");
      if (node) traitmap.openCell(...placeOf(node));
    });
    grid.addEventListener("pointerover", (event) => {
      const node = event.target.closest("[data-cell]");
      if (node && event.pointerType !== "touch") traitmap.point(...placeOf(node), node); else traitmap.point(null);
    });
    grid.addEventListener("pointerleave", () => traitmap.point(null));
    traitmap.onState(() => {
      const clean = traitmap.get("clean") === "1" && all.based;
      const shown = { sources: [], targets: [] };
      for (const side of ["sources", "targets"]) all[side].forEach((name, at) => { shown[side][at] = traitmap.matches(name, all.groups[side][at], side); });
      for (const node of cells) {
        const [s, t] = placeOf(node);
        node.classList.toggle("veiled", clean && all.kinds[all.verdicts.charCodeAt(s * all.targets.length + t) - 97][2]);
        node.classList.toggle("dim", !shown.sources[s] || !shown.targets[t]);
      }
    });
  };

  document.addEventListener("DOMContentLoaded", () => { compare(); choose(); small(); });
})();
