// A small menu at every figure: SVG and PNG as they are seen, CSV from the table that stands beside it.
(() => {
  const { make } = traitmap;
  const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-opacity", "opacity",
    "font-size", "font-weight", "font-style", "letter-spacing", "text-anchor", "dominant-baseline", "display", "visibility",
    "shape-rendering", "paint-order"];
  const USUAL = { "fill-opacity": "1", "stroke": "none", "stroke-width": "1px", "stroke-dasharray": "none", "stroke-linecap": "butt",
    "stroke-opacity": "1", "opacity": "1", "font-weight": "400", "font-style": "normal", "letter-spacing": "normal", "text-anchor": "start",
    "dominant-baseline": "auto", "display": "inline", "visibility": "visible", "shape-rendering": "auto", "paint-order": "normal" };

  const offer = (blob, name) => {
    const link = make("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  // A copy that looks the same without the page's style sheet, on the ground that it stands on.
  const alone = (svg) => {
    const copy = svg.cloneNode(true);
    const shown = [svg, ...svg.querySelectorAll("*")];
    const copied = [copy, ...copy.querySelectorAll("*")];
    shown.forEach((node, place) => {
      const computed = getComputedStyle(node);
      const own = STYLES.filter((name) => computed.getPropertyValue(name) !== USUAL[name]);
      copied[place].setAttribute("style", own.map((name) => `${name}:${computed.getPropertyValue(name)}`).join(";"));
      copied[place].removeAttribute("class");
    });
    const box = svg.viewBox.baseVal;
    const edge = 12;
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("viewBox", `${box.x - edge} ${box.y - edge} ${box.width + 2 * edge} ${box.height + 2 * edge}`);
    copy.setAttribute("width", box.width + 2 * edge);
    copy.setAttribute("height", box.height + 2 * edge);
    copy.setAttribute("font-family", getComputedStyle(svg).fontFamily);
    copy.querySelectorAll(".cursor").forEach((node) => node.remove());
    const ground = traitmap.draw("rect", { x: box.x - edge, y: box.y - edge, width: box.width + 2 * edge, height: box.height + 2 * edge });
    let under = svg;
    while (under && getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
    ground.setAttribute("style", `fill:${under ? getComputedStyle(under).backgroundColor : "white"}`);
    copy.prepend(ground);
    return { text: new XMLSerializer().serializeToString(copy), width: box.width + 2 * edge, height: box.height + 2 * edge };
  };

  const savers = {
    SVG: (svg, name) => offer(new Blob([alone(svg).text], { type: "image/svg+xml" }), `${name}.svg`),
    PNG: (svg, name) => {
      const { text, width, height } = alone(svg);
      const image = new Image();
      const scale = Math.min(2, 8000 / Math.max(width, height));
      image.addEventListener("load", () => {
        const canvas = make("canvas");
        canvas.width = Math.round(width * scale);
        canvas.height = Math.round(height * scale);
        canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob((blob) => offer(blob, `${name}.png`), "image/png");
        URL.revokeObjectURL(image.src);
      });
      image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    },
    CSV: (svg, name) => offer(new Blob([csv(tableOf(svg))], { type: "text/csv" }), `${name}.csv`),
  };

  // The table beside a figure: the one that data-table names, one in the same card, or the next one in the section.
  const tableOf = (svg) => {
    const named = svg.closest("[data-table]");
    if (named) return document.getElementById(named.dataset.table)?.querySelector("table") ?? null;
    const inside = svg.closest("figure, .card")?.querySelector("table");
    if (inside) return inside;
    const after = [...(svg.closest("section")?.querySelectorAll("table") ?? [])];
    return after.find((table) => svg.compareDocumentPosition(table) & Node.DOCUMENT_POSITION_FOLLOWING) ?? null;
  };

  // Text in a cell and the small text beneath it become two columns; nothing that a spreadsheet would run.
  const csv = (table) => {
    const rows = [...table.rows].map((row) => [...row.cells].map((cell) => {
      const small = cell.querySelector("small");
      const main = small ? cell.textContent.slice(0, -small.textContent.length) : cell.textContent;
      return [main, small?.textContent ?? ""].map((text) => text.trim().replaceAll("−", "-"));
    }));
    const wide = rows[0].map((_, column) => rows.some((row) => row[column]?.[1]));
    const quote = (text) => {
      const safe = /^[=@\t\r]|^[+-](?![\d.])/.test(text) ? `'${text}` : text;
      return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    return rows.map((row, r) => row.flatMap((cell, column) => {
      if (!wide[column]) return [quote(cell[0])];
      return [quote(cell[0]), quote(r === 0 ? `${cell[0]}: detail` : cell[1])];
    }).join(",")).join("\r\n") + "\r\n";
  };

  const nameOf = (svg) => {
    const words = svg.getAttribute("aria-label") || svg.querySelector("title")?.textContent || "figure";
    const page = document.title.split("·")[0];
    return `${page} ${words.split(/[:;]/)[0]}`.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 80);
  };

  const menu = (svg) => {
    const name = nameOf(svg);
    const list = make("div", "save-list");
    const kinds = tableOf(svg) ? ["SVG", "PNG", "CSV"] : ["SVG", "PNG"];
    for (const kind of kinds) {
      const button = make("button", "", kind);
      button.type = "button";
      button.setAttribute("aria-label", `${kind}: ${(svg.getAttribute("aria-label") || svg.querySelector("title")?.textContent || "figure").split(/[:;]/)[0]}`);
      button.addEventListener("click", () => savers[kind](svg, name));
      list.append(button);
    }
    return list;
  };

  traitmap.addSaving = (within) => {
    for (const svg of within.querySelectorAll("svg.figure")) {
      const frame = svg.closest(".scroll") ?? svg;
      if (frame.nextElementSibling?.classList.contains("save-list")) continue;
      frame.after(menu(svg));
    }
  };
  document.addEventListener("DOMContentLoaded", () => traitmap.addSaving(document));
})();
