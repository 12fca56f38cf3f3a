// What is shown stands in the address: #view=absolute&rows=mean&cell=a/b. So a link shows what its sender saw, and Back
// closes what was opened. A place in the page is #why alone, or at=why beside other settings.
(() => {
  const watchers = [];
  const decode = (text) => { try { return decodeURIComponent(text.replaceAll("+", " ")); } catch { return text; } };
  const encode = (text) => encodeURIComponent(text).replaceAll("%20", "+");

  // Values are texts; a name in several parts (a cell: source and target) is a list.
  const read = () => {
    const text = location.hash.slice(1);
    if (!text.includes("=")) return text ? { at: decode(text) } : {};
    const entries = text.split("&").map((part) => {
      const [name, ...value] = part.split("=");
      const parts = value.join("=").split("/").map(decode);
      return [decode(name), parts.length > 1 ? parts : parts[0]];
    });
    return Object.fromEntries(entries);
  };
  const write = (state) => {
    const entries = Object.entries(state).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    if (entries.length === 1 && entries[0][0] === "at") return `#${encode(entries[0][1])}`;
    if (!entries.length) return location.pathname + location.search;
    return `#${entries.map(([name, value]) => `${encode(name)}=${[value].flat().map(encode).join("/")}`).join("&")}`;
  };

  let state = read();
  let timer = 0;  // of a change that the address does not have yet
  const settle = () => {
    if (timer) history.replaceState(history.state, "", write(state));
    clearTimeout(timer);
    timer = 0;
  };
  const tell = () => watchers.forEach((watch) => watch(state));

  // opens: a dialog, which Back closes; without it the entry in the history is changed in place.
  traitmap.set = (changes, { opens = false } = {}) => {
    if (opens) settle();
    state = { ...state, ...changes };
    for (const [name, value] of Object.entries(state)) if (value === "" || value === null || value === undefined) delete state[name];
    clearTimeout(timer);
    if (opens) history.pushState({ opened: true }, "", write(state));
    else timer = setTimeout(settle, 120);  // browsers refuse many changes at once
    tell();
  };
  // Undo what was opened: one step back where it was opened on this page, else by taking it out of the address.
  traitmap.back = (...names) => {
    const rest = Object.fromEntries(names.map((name) => [name, null]));
    if (!names.some((name) => name in state)) return;
    if (history.state?.opened) history.back(); else traitmap.set(rest);
  };
  traitmap.get = (name) => state[name] ?? "";
  traitmap.onState = (watch) => { watchers.push(watch); watch(state); };

  const again = () => {
    clearTimeout(timer);
    timer = 0;
    const next = read();
    if (JSON.stringify(next) === JSON.stringify(state)) return;
    state = next;
    tell();
  };
  addEventListener("popstate", again);
  addEventListener("hashchange", again);

  // Links within the page keep what is set, and lead to a cell or to a place.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const place = decode(link.getAttribute("href").slice(1));
    const there = document.getElementById(place);
    if (place.startsWith("cell=")) {
      event.preventDefault();
      traitmap.set({ cell: place.slice(5).split("/").map(decode), with: null }, { opens: true });
    } else if (there) {
      event.preventDefault();
      traitmap.set({ at: place });
      there.scrollIntoView();
      if (link.classList.contains("skip")) { there.tabIndex = -1; there.focus({ preventScroll: true }); }
    }
  });
  document.addEventListener("DOMContentLoaded", () => {
    if (location.hash.includes("=") && state.at) document.getElementById(state.at)?.scrollIntoView();
    // Inputs that say which of the settings they hold; several may hold the same one.
    const inputs = document.querySelectorAll("[data-state]");
    const value = (input) => (input.type === "checkbox" ? (input.checked ? "1" : "") : input.type === "radio" ? (input.checked ? input.value : null) : input.value);
    inputs.forEach((input) => {
      const usual = input.dataset.usual ?? "";
      input.addEventListener(input.type === "search" ? "input" : "change", () => {
        const chosen = value(input);
        if (chosen !== null) traitmap.set({ [input.dataset.state]: chosen === usual ? "" : chosen });
      });
    });
    traitmap.onState(() => inputs.forEach((input) => {
      const now = traitmap.get(input.dataset.state) || (input.dataset.usual ?? "");
      if (input.type === "checkbox") input.checked = now === "1";
      else if (input.type === "radio") input.checked = input.value === now;
      else if (input.value !== now) input.value = now;
    }));
  });
})();
