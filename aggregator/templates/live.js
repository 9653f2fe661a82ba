"use strict";
// Puts what the server says now in the place of what it said before.
const live = document.getElementById("live");
const stale = document.getElementById("stale");
const pauseMs = 3000;
let shown = "";

async function refresh() {
  try {
    const answer = await fetch("/fragment", { cache: "no-store" });
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    if (text !== shown && getSelection().isCollapsed) {
      live.innerHTML = text;
      shown = text;
      const pill = live.querySelector(".pill");
      document.title = document.title.replace(/:[^:]*$/, ": " + pill.textContent);
    }
    stale.hidden = true;
  } catch (problem) {
    stale.textContent = "The aggregator does not answer; what is below may be old.";
    stale.hidden = false;
  }
}

setInterval(() => {
  if (!document.hidden) refresh();
}, pauseMs);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
