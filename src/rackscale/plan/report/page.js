"use strict";

// ---- light and dark ----

const root = document.documentElement, theme = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null; // until somebody chooses, the system's

const isDark = () => (chosen === null ? systemDark.matches : chosen === "dark");

function name() { theme.textContent = isDark() ? "Light" : "Dark"; }

theme.hidden = false;
theme.addEventListener("click", () => {
  chosen = isDark() ? "light" : "dark";
  root.style.colorScheme = chosen;
  name();
});
systemDark.addEventListener("change", name);
name();

// ---- a chart tells of the mark that is nearest ----

const REACH = 60; // pixels

function show(plot, mark) {
  for (const other of plot.querySelectorAll(".mark.on")) if (other !== mark) other.classList.remove("on");
  if (!mark || mark.classList.contains("on")) return;
  mark.classList.add("on");
  const card = mark.querySelector(".card");
  card.style.removeProperty("--shift");
  const { left, right } = card.getBoundingClientRect(), edge = root.clientWidth - 8;
  if (left < 8) card.style.setProperty("--shift", `${8 - left}px`);
  else if (right > edge) card.style.setProperty("--shift", `${edge - right}px`);
}

function nearest(marks, { clientX, clientY }) {
  let best = null, least = REACH;
  for (const mark of marks) {
    const { left, top } = mark.getBoundingClientRect();
    const distance = Math.hypot(left - clientX, top - clientY);
    if (distance < least) [best, least] = [mark, distance];
  }
  return best;
}

for (const plot of document.querySelectorAll(".plot")) {
  const marks = [...plot.querySelectorAll(".mark")];
  const across = [...marks].sort((a, b) => parseFloat(a.style.left) - parseFloat(b.style.left));
  plot.addEventListener("pointermove", (event) => show(plot, nearest(marks, event)));
  plot.addEventListener("pointerdown", (event) => show(plot, nearest(marks, event)));
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") show(plot, null); });
  plot.addEventListener("focusin", ({ target }) => show(plot, target.closest(".mark")));
  plot.addEventListener("focusout", () => show(plot, null));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const at = across.indexOf(event.target);
    if (!step || at < 0 || !across[at + step]) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    across[at + step].tabIndex = 0;
    across[at + step].focus();
  });
}

// ---- paper shows all ----

addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
