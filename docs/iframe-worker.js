/* The site's search from disk. A browser starts no Worker for a page of file://, so there a hidden frame of the
   same page plays one: its script finds postMessage, message events and importScripts as in a Worker. The theme's
   search looks for the name IFrameWorker; the index comes as a script (the theme's plugin "offline"). */
"use strict";
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.setAttribute("aria-hidden", "true");
      document.body.append(frame);
      const inside = frame.contentWindow;
      this.inside = inside;
      this.waiting = [];
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...places) =>
        places.reduce((before, place) => before.then(() => this.load(place)), Promise.resolve());
      this.load(url).then(() => {
        this.ready = true;
        this.waiting.splice(0).forEach((data) => this.postMessage(data));
      });
    }

    load(place) {
      const { document: page } = this.inside;
      return new Promise((resolve, reject) => {
        const script = page.createElement("script");
        script.src = String(place);
        script.onload = resolve;
        script.onerror = reject;
        page.body.append(script);
      });
    }

    postMessage(data) {
      if (this.ready) this.inside.dispatchEvent(new MessageEvent("message", { data }));
      else this.waiting.push(data);
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
