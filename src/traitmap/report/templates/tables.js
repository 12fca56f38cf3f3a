// Tables to work with: sorted by any column, filtered, and copied as Markdown, LaTeX or CSV.
(() => {
  const { make } = traitmap;
  const NUMBER = /^[+\-−]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?( %)?$/i;
  const INTERVAL = /^\[([^,\]]+), ([^\]]+)\]( · .*)?$/;
  const ascii = (text) => text.replaceAll("−", "-").trim();

  // The words of an entry without its marks, and what stands small beneath it.
  const partsOf = (cell) => {
    const small = cell.querySelector("small");
    const main = [...cell.childNodes].filter((node) => node !== small && !node.classList?.contains("sign"))
      .map((node) => node.textContent).join("");
    return [main.trim(), small?.textContent.trim() ?? ""];
  };
  const known = (text) => text !== "" && text !== "–";
  const amount = (text) => (NUMBER.test(text) ? parseFloat(ascii(text).replaceAll(",", "")) : text.startsWith("<") ? 0 : NaN);
  const order = (a, b, down) => {
    if (known(a) !== known(b)) return known(a) ? -1 : 1;
    const [x, y] = [amount(a), amount(b)];
    const both = !Number.isNaN(x) && !Number.isNaN(y);
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    const way = both ? x - y : a.localeCompare(b, undefined, { numeric: true });
    return down ? -way : way;
  };

  // Sorting. A table with an id keeps its order in the address: sort-targets=3d.
  const orders = new WeakMap();
  const sort = (table, column, way) => {
    const body = table.tBodies[0];
    if (!orders.has(table)) orders.set(table, [...body.rows]);
    const rows = [...orders.get(table)];
    const fixed = rows.filter((row) => "fixed" in row.dataset);
    const free = rows.filter((row) => !("fixed" in row.dataset));
    if (way) free.sort((a, b) => order(partsOf(a.cells[column])[0], partsOf(b.cells[column])[0], way === "d"));
    body.append(...fixed, ...free);
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      if (!head.querySelector("button")) return;
      if (at === column && way) head.setAttribute("aria-sort", way === "d" ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  const keyOf = (table) => (table.id ? `sort-${table.id}` : "");
  const ready = new WeakSet();
  const sortable = (table) => {
    if (ready.has(table) || !table.tHead || (table.tBodies[0]?.rows.length ?? 0) < 2) return;
    ready.add(table);
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = make("button", "sort", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const values = [...table.tBodies[0].rows].map((row) => partsOf(row.cells[column])[0]);
        const first = values.some((text) => !Number.isNaN(amount(text))) ? "d" : "a";
        const now = { descending: "d", ascending: "a" }[head.getAttribute("aria-sort")];
        const way = !now ? first : now === first ? (first === "d" ? "a" : "d") : "";
        if (keyOf(table)) traitmap.set({ [keyOf(table)]: way && `${column}${way}` });
        else sort(table, column, way);
      });
    });
    if (keyOf(table)) traitmap.onState(() => {
      const [, column, way] = /^(\d+)([ad])$/.exec(traitmap.get(keyOf(table))) ?? [];
      const now = `${column ?? ""}${way ?? ""}`;
      if (table.dataset.sorted === now || Number(column) >= table.tHead.rows[0].cells.length) return;
      if (table.dataset.sorted || now) sort(table, Number(column), way);
      table.dataset.sorted = now;
    });
  };

  // What is copied: heads and rows that are shown, a number without its marks, its interval in columns of its own.
  traitmap.cellsOf = (table, { details = true } = {}) => {
    const rows = [...table.tHead.rows, ...table.tBodies[0].rows].filter((row) => !row.hidden);
    const cells = rows.map((row) => [...row.cells].filter((cell) => !cell.hidden && !cell.classList.contains("mean")).map(partsOf));
    const heads = cells[0].map(([text]) => text);
    const body = cells.slice(1);
    const columns = heads.map((head, at) => {
      const small = details ? body.map((row) => row[at]?.[1] ?? "") : [];
      const told = small.filter(Boolean);
      const ends = told.map((text) => INTERVAL.exec(text));
      if (!told.length) return [[head, (row) => row[at]?.[0] ?? ""]];
      if (ends.every(Boolean)) {
        const end = (place) => (row) => INTERVAL.exec(row[at]?.[1] ?? "")?.[place] ?? "";
        const more = ends.some((found) => found[3]) ? [[`${head}: value`, (row) => (INTERVAL.exec(row[at]?.[1] ?? "")?.[3] ?? "").replace(" · ", "")]] : [];
        return [[head, (row) => row[at]?.[0] ?? ""], [`${head}: low`, end(1)], [`${head}: high`, end(2)], ...more];
      }
      return [[head, (row) => row[at]?.[0] ?? ""], [`${head}: detail`, (row) => row[at]?.[1] ?? ""]];
    }).flat();
    const shown = body.map((row) => columns.map(([, value]) => value(row)));
    return [columns.map(([head]) => head), ...shown].map((row) => row.map((text) => {
      const plain = text === "–" ? "" : text;
      return NUMBER.test(plain) ? ascii(plain).replaceAll(",", "") : plain;
    }));
  };
  const isNumber = (text) => NUMBER.test(text);

  const writers = {
    Markdown: (rows) => {
      const line = (row) => `| ${row.map((text) => text.replaceAll("|", "\\|").replaceAll("\n", " ")).join(" | ")} |`;
      const right = rows[0].map((_, at) => rows.slice(1).some((row) => isNumber(row[at])));
      return `${[line(rows[0]), line(right.map((one) => (one ? "---:" : "---"))), ...rows.slice(1).map(line)].join("\n")}\n`;
    },
    LaTeX: (rows) => {
      const escaped = (text) => text.replace(/[\\{}$&#%_~^]/g, (sign) => ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" }[sign] ?? `\\${sign}`)).replaceAll("→", "$\\to$");
      const entry = (text) => (isNumber(text) && !text.endsWith("%") ? `$${text}$` : escaped(text.replaceAll("−", "-")));
      const line = (row) => `${row.map(entry).join(" & ")} \\\\`;
      const right = rows[0].map((_, at) => (rows.slice(1).some((row) => isNumber(row[at])) ? "r" : "l"));
      return ["% needs \\usepackage{booktabs}", `\\begin{tabular}{${right.join("")}}`, "\\toprule", line(rows[0]), "\\midrule",
        ...rows.slice(1).map(line), "\\bottomrule", "\\end{tabular}", ""].join("\n");
    },
    CSV: (rows) => {
      // Nothing that a spreadsheet would run.
      const quote = (text) => {
        const safe = /^[=@\t\r]|^[+-](?![\d.])/.test(text) ? `'${text}` : text;
        return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
      };
      return `${rows.map((row) => row.map(quote).join(",")).join("\r\n")}\r\n`;
    },
  };
  traitmap.csv = (table) => writers.CSV(traitmap.cellsOf(table));

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // a browser that keeps the clipboard from files
      const area = make("textarea", "sr-only");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  const copies = (table) => {
    const list = make("div", "save-list copies");
    const said = make("span", "sr-only");
    said.setAttribute("role", "status");
    for (const kind of Object.keys(writers)) {
      const button = make("button", "", kind);
      button.type = "button";
      button.setAttribute("aria-label", `Copy as ${kind}: ${table.caption?.textContent.split(/[.;]/)[0] ?? "table"}`);
      button.addEventListener("click", async () => {
        await copy(writers[kind](traitmap.cellsOf(table, { details: table.dataset.copy !== "numbers" })));
        said.textContent = `copied as ${kind}`;
        button.classList.add("done");
        setTimeout(() => button.classList.remove("done"), 1500);
      });
      list.append(button);
    }
    list.append(said);
    return list;
  };

  // Tables in folds are made ready when they are opened.
  const equipped = new WeakSet();
  traitmap.equip = (within) => {
    for (const table of within.querySelectorAll(".scroll > table")) {
      if (equipped.has(table) || table.closest("details:not([open])")) continue;
      equipped.add(table);
      sortable(table);
      table.parentElement.before(copies(table));
    }
  };

  // Rows that are filtered by the names in their first column.
  const parts = (text) => text.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean);
  traitmap.matches = (name, groups, side) => {
    const wanted = parts(traitmap.get(side));
    const group = traitmap.get(`${side}-group`);
    return (!wanted.length || wanted.some((part) => name.toLowerCase().includes(part))) && (!group || groups.includes(group));
  };
  const filter = (all) => {
    for (const side of ["sources", "targets"]) {
      const names = all[side];
      const shown = new Set(names.filter((name, at) => traitmap.matches(name, all.groups[side][at], side)));
      document.querySelectorAll(`table[data-rows="${side}"]`).forEach((table) => {
        for (const row of table.tBodies[0].rows) {
          if (!("fixed" in row.dataset)) row.hidden = !shown.has(row.dataset.name ?? row.cells[0].textContent);
        }
      });
      document.querySelectorAll(`table[data-columns="${side}"]`).forEach((table) => {
        for (const row of table.rows) {
          names.forEach((name, at) => { if (row.cells[at + 1]) row.cells[at + 1].hidden = !shown.has(name); });
        }
      });
      document.querySelectorAll(`[data-count="${side}"]`).forEach((node) => {
        node.textContent = shown.size === names.length ? "" : `${shown.size} of ${names.length} ${side}`;
      });
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    const all = traitmap.data("matrix-data");
    for (const [id, side, columns] of [["targets-table", "targets"], ["sources-table", "sources"], ["gains-table", "sources", "targets"]]) {
      const table = document.getElementById(id);
      if (!table) continue;
      table.dataset.rows = side;
      if (columns) table.dataset.columns = columns;
      if (id === "gains-table") table.dataset.copy = "numbers";
      // names as the data have them: a row's head may say more than its name
      const names = id === "gains-table" && all.based ? [null, ...all[side]] : all[side];
      [...table.tBodies[0].rows].forEach((row, at) => { if (names[at] === null) row.dataset.fixed = ""; else row.dataset.name = named(id, row, all, names, at); });
    }
    traitmap.equip(document);
    document.addEventListener("toggle", (event) => { if (event.target.open) traitmap.equip(event.target); }, true);
    traitmap.onState(() => filter(all));
  });
  // The table of sources stands in an order of its own; the others in the order of the matrix.
  const named = (id, row, all, names, at) => (id === "sources-table" ? row.cells[0].textContent : names[at]);
})();
