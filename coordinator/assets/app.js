// What a page gains with JavaScript: parts that follow the farm, relative times that stay true, buttons that copy.
// Everything works without it. No text from the farm becomes markup here except what the server rendered and escaped.
"use strict";

(() => {
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  const ago = (then) => {
    const seconds = Math.max(0, Math.floor((Date.now() - then) / 1000));
    const [size, unit] = UNITS.find(([size]) => seconds >= size) ?? UNITS[UNITS.length - 1];
    return `${Math.floor(seconds / size)} ${unit} ago`;
  };

  const tellTimes = () => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const then = Date.parse(time.dateTime);
      if (!Number.isNaN(then)) time.textContent = ago(then);
    }
  };

  const offerCopies = (within) => {
    for (const button of within.querySelectorAll("button[data-copy]")) {
      if (!navigator.clipboard) continue;
      button.hidden = false;
    }
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    const said = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = said; }, 1500);
  });

  // Each message is the server's rendering of some parts of this page; a part replaces the one with its id.
  const follow = (main) => {
    const told = document.getElementById("live");
    let source = null;
    const say = (on, text) => {
      if (!told) return;
      told.hidden = false;
      told.classList.toggle("on", on);
      told.textContent = text;
    };
    const take = (event) => {
      const fresh = new DOMParser().parseFromString(event.data, "text/html");
      for (const part of fresh.querySelectorAll("[data-part]")) {
        const old = document.getElementById(part.id);
        if (!old || old.innerHTML === part.innerHTML) continue;
        // Whoever works in a part with the keyboard keeps it until they leave.
        if (old.contains(document.activeElement)) continue;
        const open = new Set([...old.querySelectorAll("details[open][id]")].map((details) => details.id));
        old.replaceWith(document.importNode(part, true));
        const now = document.getElementById(part.id);
        for (const details of now.querySelectorAll("details[id]")) details.open ||= open.has(details.id);
        offerCopies(now);
      }
      tellTimes();
      say(true, "Live");
    };
    const open = () => {
      source = new EventSource(main.dataset.live);
      source.addEventListener("open", () => say(true, "Live"));
      source.addEventListener("part", take);
      source.addEventListener("end", () => {
        source.close();
        source = "over";
        say(false, "Ended");
      });
      source.addEventListener("error", () => say(false, source.readyState === EventSource.CLOSED ? "Not live: reload to see news" : "Reconnecting…"));
    };
    // A page that nobody sees holds no connection.
    const turn = () => {
      if (source === "over") return;
      if (document.hidden) {
        source?.close();
        source = null;
      } else if (!source) {
        open();
      }
    };
    document.addEventListener("visibilitychange", turn);
    turn();
  };

  const main = document.querySelector("main[data-live]");
  if (main && "EventSource" in window) follow(main);
  offerCopies(document);
  tellTimes();
  setInterval(tellTimes, 20_000);
})();
