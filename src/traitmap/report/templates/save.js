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

  // Title and caption of a figure, as the page has them beside it.
  const wordsOf = (svg) => {
    const own = (svg.querySelector("title")?.textContent ?? "").split(/[;]/)[0];
    const caption = svg.closest("figure")?.querySelector("figcaption");
    const about = svg.id === "matrix" ? svg.closest("section") : null;
    const title = (caption ?? about)?.querySelector("h2, h3, h4")?.firstChild.textContent.trim() || own;
    const paragraphs = caption ? [...caption.querySelectorAll("p:not(.tags)")] : [about?.querySelector("h2 + p")].filter(Boolean);
    return { title, caption: paragraphs.map((one) => one.textContent.trim()).join(" ") };
  };
  const pen = make("canvas").getContext("2d");
  const measure = (words, size, weight) => {
    pen.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
    return pen.measureText(words).width;
  };
  const wrap = (words, size, room, weight) => words.split(/\s+/).filter(Boolean).reduce((lines, word) => {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && measure(longer, size, weight) <= room) lines[lines.length - 1] = longer; else lines.push(word);
    return lines;
  }, []);

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
    const words = wordsOf(svg);
    const head = wrap(words.title, 13, box.width, 650);
    const foot = wrap(words.caption, 11, box.width, 400);
    const above = head.length ? head.length * 17 + 8 : 0;
    const legend = svg.id === "matrix" ? svg.closest("section")?.querySelector(".legend:not([hidden])") : null;
    const below = (legend ? 26 : 0) + (foot.length ? foot.length * 15 + 12 : 0);
    const family = getComputedStyle(svg).fontFamily;
    const write = (line, x, y, size, weight, colour) => {
      const node = traitmap.draw("text", { x, y, style: `font-size:${size}px;font-weight:${weight};fill:${colour}` });
      node.textContent = line;
      copy.append(node);
      return measure(line, size, weight);
    };
    const ink = getComputedStyle(document.body).color;
    head.forEach((line, at) => write(line, box.x, box.y - above + 13 + 17 * at, 13, 650, ink));
    if (legend) {
      const [left, ramp, right] = legend.children;
      const y = box.y + box.height + 14;
      let x = box.x + write(left.textContent, box.x, y + 10, 11, 400, ink) + 8;
      for (const step of ramp.children) {
        copy.append(traitmap.draw("rect", { x, y, width: 6, height: 12, style: `fill:${getComputedStyle(step).backgroundColor}` }));
        x += 6;
      }
      write(right.textContent, x + 8, y + 10, 11, 400, ink);
    }
    foot.forEach((line, at) => write(line, box.x, box.y + box.height + (legend ? 26 : 0) + 20 + 15 * at, 11, 400, ink));
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const [width, height] = [box.width + 2 * edge, box.height + above + below + 2 * edge];
    copy.setAttribute("viewBox", `${box.x - edge} ${box.y - above - edge} ${width} ${height}`);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.setAttribute("font-family", family);
    copy.querySelectorAll(".cursor").forEach((node) => node.remove());
    const ground = traitmap.draw("rect", { x: box.x - edge, y: box.y - above - edge, width, height });
    let under = svg;
    while (under && getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
    ground.setAttribute("style", `fill:${under ? getComputedStyle(under).backgroundColor : "white"}`);
    copy.prepend(ground);
    return { text: new XMLSerializer().serializeToString(copy), width, height };
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
    CSV: (svg, name) => offer(new Blob([traitmap.csv(tableOf(svg))], { type: "text/csv" }), `${name}.csv`),
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
      if (svg.closest(".slim")) continue;  // the same figure once more, for a narrow page
      const frame = svg.closest(".drawing, .scroll") ?? svg;
      if (frame.nextElementSibling?.classList.contains("save-list")) continue;
      frame.after(menu(svg));
    }
  };
  document.addEventListener("DOMContentLoaded", () => traitmap.addSaving(document));
})();
