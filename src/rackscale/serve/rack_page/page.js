"use strict";
// Ask once a second, draw what comes. Names and sentences of the server are only ever set as text.

const PERIOD_MS = 1000, LONGEST_MS = 15000, ANSWER_MS = 5000;
const HISTORY = 120; // points of a chart, one a second
const HOT = 4; // times a layer's mean: the end of the heat map's colours
const MAX_EVENTS = 50;
const CABLES = 16; // on each side of a flow
const ROLES = ["prefill", "decode", "mixed"]; // from the top of the cabinet; others below

const byId = (id) => document.getElementById(id);
const put = (id, text) => { byId(id).textContent = text; };
const clone = (id) => byId(id).content.firstElementChild.cloneNode(true);
const sleep = (ms) => new Promise((wake) => { setTimeout(wake, ms); });
const most = (values) => values.reduce((high, value) => Math.max(high, value), 0);
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const dark = matchMedia("(prefers-color-scheme: dark)");

// ---- ask ----

class NotYet extends Error {}

async function ask() {
  const answer = await fetch("rack/state", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  if (answer.status === 503) throw new NotYet((await answer.json()).error.message);
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}

async function watch() {
  let failures = 0, since = null;
  for (;;) {
    let state = null, pause_ms = PERIOD_MS;
    try {
      state = await ask();
      failures = 0;
      link("up", "");
    } catch (error) {
      if (error instanceof NotYet) {
        failures = 0;
        link("waiting", `Not yet: ${error.message.split(";")[0]}.`);
      } else {
        if (!failures) since = new Date();
        failures += 1;
        pause_ms = Math.min(PERIOD_MS * 2 ** failures, LONGEST_MS);
        link("gone", `The server has not answered since ${clock(since)}. What you see is older; asking on.`);
      }
    }
    remember(state, Math.round(pause_ms / PERIOD_MS) - 1);
    try {
      if (state) draw(state);
    } catch (error) {
      reportError(error); // a state that cannot be drawn must not end the watch
    }
    await sleep(pause_ms);
  }
}

function link(status, sentence) {
  document.documentElement.dataset.link = status;
  if (byId("link").textContent !== sentence) put("link", sentence); // screen readers say each change
}

// ---- words ----

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (value) => (value < 100000 ? whole : short).format(value);
const percent = (share) => `${Math.round(100 * share)} %`;
const clock = (date) => date.toLocaleTimeString([], { hour12: false });

function duration(seconds) {
  const m = Math.floor(seconds / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (d) return `${d} d ${h % 24} h`;
  if (h) return `${h} h ${m % 60} min`;
  return m ? `${m} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  for (; number >= 999.5 && unit < units.length - 1; unit += 1) number /= 1000;
  return `${number.toFixed(unit && number < 10 ? 1 : 0)} ${units[unit]}`;
}

// ---- draw ----

const past = { rate: [], running: [], waiting: [] };

// missed: seconds without a point that follow. A null is a gap in the line.
function remember(state, missed) {
  const now = { rate: state?.tokens_per_s, running: state?.num_running, waiting: state?.num_waiting };
  for (const [name, points] of Object.entries(past)) {
    points.push(now[name] ?? null, ...Array.from({ length: missed }, () => null));
    points.splice(0, points.length - HISTORY);
  }
  drawCharts();
}

function draw(state) {
  document.title = `${state.model}, ${count(state.tokens_per_s)} tokens/s`;
  put("model", state.model);
  put("uptime", `up for ${duration(state.uptime_s)}`);
  put("rate", count(state.tokens_per_s));
  put("running", count(state.num_running));
  put("waiting", count(state.num_waiting));
  put("finished", count(state.num_finished));
  drawCabinet(state.groups, state.transfers);
  drawExperts(state.experts);
  drawTransfers(state.transfers);
  drawEvents(state.events);
}

let standing = ""; // the layout that the cabinet shows
let flows = [];

function drawCabinet(groups, transfers) {
  const place = ({ role }) => (ROLES.includes(role) ? ROLES.indexOf(role) : ROLES.length);
  const ordered = [...groups].sort((one, other) => place(one) - place(other));
  const ranks = ordered.flatMap((group) => group.ranks);
  const layout = JSON.stringify(ordered.map((group) => [group.role, group.ranks.map(({ rank }) => rank)]));
  if (layout !== standing) build(ordered, ranks.length);
  standing = layout;

  const busiest = most(ranks.map((rank) => rank.tokens_per_s));
  const pools = document.querySelectorAll(".pool");
  const slots = document.querySelectorAll(".slot");
  ordered.forEach((group, at) => {
    const step = group.step_s ? `, a step ${(1000 * group.step_s).toFixed(group.step_s < 0.01 ? 1 : 0)} ms` : "";
    const width = group.tp > 1 ? `, tp ${group.tp}` : "";
    pools[at].querySelector("p").textContent =
      `${plural(group.ranks.length, "rank")}${width}${step}, imbalance ${group.imbalance.toFixed(2)}`;
  });
  ranks.forEach((rank, at) => drawSlot(slots[at], rank, busiest));
  put("summary", summary(ranks));
  flows.forEach((flow) => drawFlow(flow, transfers));
}

function summary(ranks) {
  const of = (status) => ranks.filter((rank) => rank.status === status).length;
  const parts = ["up", "starting", "lost"].map((status) => [of(status), status]);
  return parts.filter(([number, status]) => number || status === "up")
    .map(([number, status]) => `${number} ${status}`).join(" · ");
}

function build(groups, num_ranks) {
  const pools = byId("pools");
  pools.replaceChildren();
  flows = [];
  const columns = num_ranks <= 10 ? 1 : num_ranks <= 24 ? 2 : 4;
  document.querySelector(".cabinet").dataset.columns = columns;
  groups.forEach((group, at) => {
    if (group.role === "decode" && groups[at - 1]?.role === "prefill") pools.append(buildFlow());
    const pool = clone("pool-template");
    pool.dataset.role = group.role;
    pool.querySelector("h3").textContent = group.role;
    const list = pool.querySelector("ul");
    list.setAttribute("aria-label", `Ranks of the ${group.role} pool`);
    list.append(...group.ranks.map(() => clone("slot-template")));
    for (let empty = (columns - (group.ranks.length % columns)) % columns; empty > 0; empty -= 1) {
      const cover = document.createElement("li");
      cover.className = "cover";
      cover.ariaHidden = "true";
      list.append(cover);
    }
    pools.append(pool);
  });
}

function buildFlow() {
  const flow = clone("flow-template");
  for (const side of flow.querySelectorAll(".cables")) {
    side.append(...Array.from({ length: CABLES }, () => document.createElement("i")));
  }
  flows.push(flow);
  return flow;
}

function drawSlot(slot, rank, busiest) {
  const kv = rank.num_blocks ? rank.num_used_blocks / rank.num_blocks : 0;
  const part = (name, text) => { slot.querySelector(`.${name}`).textContent = text; };
  slot.dataset.rank = rank.rank;
  slot.dataset.status = rank.status;
  slot.querySelector(".led").dataset.status = rank.status;
  slot.dataset.pace = rank.tokens_per_s > 0 && busiest ? Math.ceil((3 * rank.tokens_per_s) / busiest) : 0;
  for (const [name, share] of [["compute", rank.compute_share], ["wait", rank.wait_share],
    ["copy", rank.copy_share]]) {
    slot.querySelector(`.${name}`).style.width = `${100 * share}%`;
  }
  slot.querySelector(".kv i").style.width = `${100 * kv}%`;
  part("number", rank.rank);
  part("status", rank.status);
  part("host", rank.host);
  part("requests", `${rank.num_running} running, ${rank.num_waiting} waiting`);
  part("restarts", rank.num_restarts ? `↻ ${rank.num_restarts}` : "");
  part("percent", percent(kv));
  part("rate", rank.status === "up" ? count(rank.tokens_per_s) : rank.status);
  const said = `Rank ${rank.rank} on ${rank.host}, process ${rank.pid}: ${rank.status}, `
    + `${rank.num_running} running, ${rank.num_waiting} waiting, KV ${percent(kv)}, `
    + `${count(rank.tokens_per_s)} tokens/s, ${percent(rank.compute_share)} compute, `
    + `${percent(rank.wait_share)} wait, ${percent(rank.copy_share)} copy, `
    + `${plural(rank.num_restarts, "restart")}`;
  part("said", said);
  slot.title = said;
}

function drawFlow(flow, transfers) {
  const lit = Math.min(CABLES, transfers.num_in_flight);
  for (const side of flow.querySelectorAll(".cables")) {
    [...side.children].forEach((cable, at) => { cable.className = at < lit ? "lit" : ""; });
  }
  flow.querySelector("p").textContent =
    `↓ KV ${bytes(transfers.bytes_per_s)}/s, ${transfers.num_in_flight} in flight ↓`;
}

function drawTransfers(transfers) {
  byId("transfers").hidden = !flows.length && !transfers.num_moved && !transfers.num_failed;
  put("in-flight", count(transfers.num_in_flight));
  put("kv-rate", bytes(transfers.bytes_per_s));
  put("moved", count(transfers.num_moved));
  put("kv-bytes", bytes(transfers.num_bytes));
  put("failed", count(transfers.num_failed));
}

let told = "";

function drawEvents(events) {
  const shown = events.slice(0, MAX_EVENTS);
  if (JSON.stringify(shown) === told) return;
  told = JSON.stringify(shown);
  byId("events").replaceChildren(...(shown.length ? shown : [{ what: "nothing yet" }]).map((event) => {
    const line = document.createElement("li"), time = document.createElement("time");
    if (event.time_s) {
      const date = new Date(1000 * event.time_s);
      time.dateTime = date.toISOString();
      time.textContent = clock(date);
    }
    line.append(time, event.what);
    return line;
  }));
}

// ---- charts ----

function drawCharts() {
  const now = (points) => (points.at(-1) === null ? "–" : count(points.at(-1)));
  const top = most(past.rate), peak = Math.max(most(past.running), most(past.waiting));
  const rate = `${now(past.rate)} now, ${count(top)} at most`;
  const running = `${now(past.running)} running`, waiting = `${now(past.waiting)} waiting`;
  chart("rate-chart", top, past.rate);
  chart("queue-chart", peak, past.running, past.waiting);
  put("rate-reading", rate);
  put("running-reading", running);
  put("waiting-reading", waiting);
  byId("rate-chart").ariaLabel = `Tokens per second over the last two minutes: ${rate}`;
  byId("queue-chart").ariaLabel = `Requests over the last two minutes: ${running}, ${waiting}`;
}

function chart(id, top, points, second = []) {
  const [width, height] = [HISTORY, 40];
  const x = (at, of) => width - (of.length - 1 - at) * (width / (HISTORY - 1));
  const y = (value) => height - 1 - ((height - 3) * value) / (top || 1);
  const runs = (of) => { // [first, last] of each stretch without a gap
    const found = [];
    of.forEach((value, at) => {
      if (value === null) return;
      if (at && of[at - 1] !== null) found.at(-1)[1] = at;
      else found.push([at, at]);
    });
    return found;
  };
  const stretch = (of, [first, last]) => of.slice(first, last + 1)
    .map((value, at) => `${x(first + at, of).toFixed(2)},${y(value).toFixed(2)}`).join("L");
  const line = (of) => runs(of).map((run) => `M${stretch(of, run)}`).join("");
  const area = (of) => runs(of).map((run) =>
    `M${x(run[0], of)},${height}L${stretch(of, run)}L${x(run[1], of)},${height}Z`).join("");
  const svg = byId(id);
  svg.querySelector(".area").setAttribute("d", area(points));
  svg.querySelector(".line").setAttribute("d", line(points));
  svg.querySelector(".second")?.setAttribute("d", line(second));
}

// ---- the experts' heat ----

const RAMPS = { // at 0, 1/4 (the mean), 1/2, 3/4 and 1
  dark: [[21, 26, 33], [38, 70, 104], [146, 84, 104], [226, 124, 62], [255, 226, 150]],
  light: [[244, 242, 236], [214, 206, 178], [224, 160, 92], [192, 78, 52], [92, 22, 46]],
};

function colour(share) {
  const ramp = RAMPS[dark.matches ? "dark" : "light"];
  const at = Math.min(Math.max(share, 0), 1) * (ramp.length - 1), low = Math.min(Math.floor(at), ramp.length - 2);
  return ramp[low].map((channel, c) => channel + (at - low) * (ramp[low + 1][c] - channel));
}

function paint(canvas, rows) {
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  rows.flat().forEach((share, at) => { image.data.set([...colour(share), 255], 4 * at); });
  context.putImageData(image, 0, 0);
}

let heat = []; // times the layer's mean

function drawExperts({ loads, num_rebalances, num_moved_experts }) {
  byId("experts").hidden = !loads.length || !loads[0].length;
  if (byId("experts").hidden) return;
  heat = loads.map((layer) => {
    const mean = layer.reduce((sum, load) => sum + load, 0) / layer.length;
    return layer.map((load) => (mean ? load / mean : 0));
  });
  const canvas = byId("heat");
  paint(canvas, heat.map((layer) => layer.map((times) => times / HOT)));
  byId("experts").style.setProperty("--layers", loads.length);
  paint(byId("ramp"), [Array.from({ length: 64 }, (_, at) => at / 63)]);
  put("first-layer", `${loads.length} MoE layers ↓`);
  put("moves", `${plural(num_rebalances, "rebalance")}, ${plural(num_moved_experts, "expert")} moved`);
  const peaks = heat.map(most), layer = peaks.indexOf(most(peaks));
  const hottest = `hottest: ${cell(layer, heat[layer].indexOf(peaks[layer]))}`;
  put("hottest", hottest);
  canvas.ariaLabel = `Recent tokens of ${loads[0].length} experts in ${loads.length} layers, ${hottest}`;
}

const cell = (layer, expert) => `layer ${layer}, expert ${expert}, ${heat[layer][expert].toFixed(1)} ×`;

byId("heat").addEventListener("pointermove", ({ offsetX, offsetY, target }) => {
  const at = (offset, size, number) => Math.min(Math.max(Math.floor((offset / size) * number), 0), number - 1);
  const layer = at(offsetY, target.clientHeight, heat.length);
  target.title = cell(layer, at(offsetX, target.clientWidth, heat[layer].length));
});

watch();
