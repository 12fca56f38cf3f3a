"use strict";
// Theme first, before anything is painted; the rest when the page is there. Text goes in as text only.
const traitmap = {};
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

  // An element with text and a class; null children are left out.
  traitmap.make = (tag, style, ...children) => {
    const node = document.createElement(tag);
    if (style) node.className = style;
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  traitmap.draw = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  // Data that stand in the page, read once and only when they are needed.
  const read = new Map();
  traitmap.data = (id) => {
    if (!read.has(id)) {
      const place = document.getElementById(id);
      read.set(id, place ? JSON.parse(place.textContent) : null);
    }
    return read.get(id);
  };
  // Hyphens that are minus signs, as the page writes them.
  traitmap.typeset = (text) => text.replace(/(^|[\s[(,])-(?=\d)/g, "$1−");

  // What is wider than its frame fades at the edge behind which there is more.
  const edge = (frame) => frame.classList.toggle("more", frame.scrollWidth - frame.clientWidth - frame.scrollLeft > 2);
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => edge(entry.target)));
  traitmap.watchEdges = (within) => within.querySelectorAll(".scroll").forEach((frame) => {
    sizes.observe(frame);
    frame.addEventListener("scroll", () => edge(frame), { passive: true });
  });

  document.addEventListener("DOMContentLoaded", () => {
    apply();
    traitmap.watchEdges(document);
    document.getElementById("theme").addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      keep(theme);
      apply();
    });
  });
})();
