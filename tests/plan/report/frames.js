"use strict";

// Runs in the page around the frames: measures each report as it stands, in both colour schemes.

const number = (colour) => { // any colour of CSS as red, green, blue and opacity
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue, opacity] = context.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, opacity / 255];
};
const known = new Map();
const rgba = (colour) => known.get(colour) ?? (known.set(colour, number(colour)), known.get(colour));
const over = (top, below) => top.slice(0, 3).map((channel, at) => channel * top[3] + below[at] * (1 - top[3]));

function luminance(colour) { // WCAG 2.2, relative luminance
  const [red, green, blue] = colour.map((channel) => channel / 255)
    .map((share) => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function ground(view, element) {
  if (!element) return [255, 255, 255];
  const colour = rgba(view.getComputedStyle(element).backgroundColor);
  return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(view, element.parentElement));
}

function faint(view) { // texts of less contrast than WCAG's 4.5
  const found = [];
  for (const element of view.document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.getClientRects().length) continue;
    const style = view.getComputedStyle(element), below = ground(view, element);
    const [one, two] = [luminance(over(rgba(style.color), below)), luminance(below)];
    const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (contrast < 4.5) found.push(`${element.className}: ${element.textContent.slice(0, 30)} ${contrast.toFixed(2)}`);
  }
  return found;
}

function measured(view) {
  const { document } = view, sections = {};
  for (const section of document.querySelectorAll("section")) {
    const { left, top, width, height } = section.getBoundingClientRect();
    sections[section.id] = {
      place: [left, top, width, height],
      title: section.querySelector("h2").getClientRects().length,
      text: section.innerText.trim().length,
    };
  }
  return {
    sections,
    overflow: document.documentElement.scrollWidth - view.innerWidth,
    ground: luminance(ground(view, document.body)),
    faint: faint(view),
  };
}

function cards(view) { // what each chart tells where the pointer is on its first mark
  return [...view.document.querySelectorAll(".plot")].map((plot) => {
    const mark = plot.querySelector(".mark"), { left, top } = mark.getBoundingClientRect();
    const move = new view.PointerEvent("pointermove", { clientX: left + 3, clientY: top - 2, bubbles: true });
    plot.dispatchEvent(move);
    const card = plot.querySelector(".mark.on .card"), place = card.getBoundingClientRect();
    const found = { text: card.innerText, left: place.left, right: place.right, width: view.innerWidth };
    plot.dispatchEvent(new view.PointerEvent("pointerleave", { pointerType: "mouse" }));
    found.gone = plot.querySelector(".mark.on") === null;
    mark.focus();
    mark.dispatchEvent(new view.KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    found.next = view.document.activeElement !== mark && view.document.activeElement.ariaLabel;
    view.document.activeElement.blur();
    return found;
  });
}

addEventListener("load", () => {
  const result = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const view = frame.contentWindow, theme = view.document.getElementById("theme");
    const found = { [theme.textContent === "Light" ? "dark" : "light"]: measured(view) };
    theme.click();
    found[theme.textContent === "Light" ? "dark" : "light"] = measured(view);
    result[frame.name] = { ...found, cards: cards(view) };
  }
  document.getElementById("result").textContent = JSON.stringify(result);
});
