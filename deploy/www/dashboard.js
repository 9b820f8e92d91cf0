// The dashboard: what runs and how fast, from /status and /live of the supervisor, once a second while it is looked at.

const PLOT_POINTS = 120;
const PLAYERS_OWN = new Set(["denied", "not_found", "bad_request"]); // answers to what was asked wrongly: no failure of ours
const byId = (id) => document.getElementById(id);
const methodHistory = new Map(); // method → its last rates, kept while the page is open
let retry = 0;

// ---- small helpers ------------------------------------------------------------------------------

function duration(us) {
  if (!us) return "–";
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 10000 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(1)} s`;
}

function age(s) {
  if (s === null || s === undefined) return "–";
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${Math.round(s / 86400)} d`;
}

function amount(n) {
  if (n >= 1e6) return `${(n / 1e6).toFixed(2)} M`;
  if (n >= 1e4) return `${(n / 1000).toFixed(1)} k`;
  return n >= 100 || Number.isInteger(n) ? Math.round(n).toLocaleString("en") : n.toFixed(1);
}

function cell(row, content, className) {
  const td = document.createElement("td");
  if (className) td.className = className;
  if (content instanceof Node) td.append(content);
  else td.textContent = content;
  row.append(td);
  return td;
}

function big(id, value, unit) {
  const small = document.createElement("small");
  small.textContent = unit;
  byId(id).replaceChildren(value, small);
}

// ---- plots -------------------------------------------------------------------------------------

function plot(canvas, values) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth * scale, height = canvas.clientHeight * scale;
  if (!width) return;
  canvas.width = width;
  canvas.height = height;
  const style = getComputedStyle(document.documentElement), g = canvas.getContext("2d");
  const top = Math.max(...values, 1e-9), step = width / (PLOT_POINTS - 1);
  const first = width - step * (values.length - 1);
  const y = (v) => height - scale - (v / top) * (height - 3 * scale);
  g.strokeStyle = style.getPropertyValue("--line");
  g.lineWidth = scale;
  g.beginPath();
  g.moveTo(0, height - scale / 2);
  g.lineTo(width, height - scale / 2);
  g.stroke();
  if (values.length < 2) return;
  g.beginPath();
  values.forEach((v, i) => (i ? g.lineTo(first + i * step, y(v)) : g.moveTo(first, y(v))));
  g.strokeStyle = style.getPropertyValue("--plot");
  g.lineWidth = 1.5 * scale;
  g.lineJoin = "round";
  g.stroke();
  g.lineTo(width, height);
  g.lineTo(first, height);
  g.fillStyle = style.getPropertyValue("--plot-soft");
  g.fill();
}

// ---- the parts of the page -----------------------------------------------------------------------

function showHead(status) {
  document.title = `${status.cluster} · Loquat`;
  byId("cluster").textContent = status.cluster === "loquat" ? "" : status.cluster;
  const wanted = status.instances.filter((i) => i.wanted);
  const missing = wanted.filter((i) => i.state !== "ready" || i.silent_s).length;
  const short = status.phase === "ready" && missing > 0;
  byId("phase").textContent = short ? `${missing} of ${wanted.length} not ready` : status.phase;
  byId("phase").className = `pill ${short ? "failed" : status.phase}`;
  byId("about").textContent =
    `version ${status.version} · ${wanted.length - missing} of ${wanted.length} instances ready · up ${age(status.uptime_s)}`;
}

// Of those that were called in the last ten seconds, as the plot.
function slowestMethod(methods) {
  const called = Object.entries(methods).filter(([, m]) => m.rate_10s > 0 && m.p99_us);
  return called.sort(([, a], [, b]) => b.p99_us - a.p99_us)[0]?.[0];
}

function showCards(live, status) {
  const silent = (service) => status.instances.filter((i) => i.silent_s && i.service === service).map((i) => i.id).join(", ");
  const stats = live.stats, h = live.history, last = (list) => list[list.length - 1] ?? 0;
  big("requests", amount(last(h.requests)), "per second");
  const slowest = slowestMethod(stats.methods);
  byId("slowest-method").textContent = slowest ? `Slowest: ${slowest.slice(slowest.indexOf(".") + 1)}` : "Slowest method";
  byId("slowest-method").title = slowest ?? "";
  big("p99", duration(last(h.p99_us)), "p99");
  big("errors", amount(last(h.errors)), "per second");
  const unheard = silent("connector");
  big("sessions", amount(stats.sessions ?? 0), unheard ? `connected, as far as known: ${unheard} is silent` : "connected");
  const lag = stats.replay?.lag_records;
  const refused = stats.replay?.in_quarantine ?? 0;
  big("lag", lag === undefined ? "–" : lag ? amount(lag) : "up to date",
    [lag ? `records, ${duration(stats.replay.lag_ms * 1000)}` : "",
      silent("dbwriter") ? `${silent("dbwriter")} is silent` : "",
      refused ? `${amount(refused)} in quarantine: build/bin/dbwriter --quarantine` : ""].filter(Boolean).join(" · "));
  byId("lag").querySelector("small").className = refused ? "bad" : "";
  for (const canvas of document.querySelectorAll("canvas[data-plot]")) plot(canvas, h[canvas.dataset.plot]);
}

function processRow(i) {
  const row = document.createElement("tr");
  const missing = i.wanted && i.state === "stopped", runs = i.pid || i.state === "ready"; // no pid is known of other hosts
  if (i.state === "stopped" && !missing) row.className = "idle";
  cell(row, i.id);
  const silent = i.silent_s ? `silent for ${age(i.silent_s)}` : ""; // its figures are of then
  const state = cell(row, missing ? "unreachable" : silent || i.state, `left state ${missing || silent ? "failed" : i.state}`);
  if (i.why) state.append(document.createTextNode(`: ${i.why}`));
  cell(row, runs && i.code || "–", "left mono"); // the version of its Lua: who runs what, also after a reload
  cell(row, i.pid ?? "–");
  cell(row, age(runs && !silent ? i.uptime_s : null));
  cell(row, i.restarts || "–", i.restarts ? "bad" : "");
  cell(row, !silent && i.sessions || "–");
  cell(row, i.rss_bytes ? `${(i.rss_bytes / 1048576).toFixed(1)} MiB` : "–");
  const cpu = document.createElement("span"), bar = document.createElement("span"), fill = document.createElement("i");
  bar.className = "bar";
  fill.style.width = `${Math.min(100, 100 * (i.cpu ?? 0))}%`;
  bar.append(fill);
  cpu.append(bar, `${(100 * (i.cpu ?? 0)).toFixed(1)} %`);
  cell(row, runs && !silent && i.cpu !== undefined ? cpu : "–");
  cell(row, i.client ?? "–", "left mono");
  const link = document.createElement("a");
  link.textContent = i.http;
  link.href = `http://${i.http}/`;
  cell(row, i.http && runs ? link : i.http ?? "–", "left mono");
  return row;
}

function showProcesses(status) {
  const rows = [];
  if (status.database?.private) {
    rows.push(processRow({ id: "mariadb", ...status.database, why: "", http: null, client: null }));
  }
  byId("processes").replaceChildren(...rows, ...status.instances.map(processRow));
}

function methodRow(name, m) {
  const row = document.createElement("tr"), canvas = document.createElement("canvas");
  const wrong = Object.entries(m.errors).sort(([, a], [, b]) => b - a), grave = wrong.some(([word]) => !PLAYERS_OWN.has(word));
  if (!m.count && !wrong.length) row.className = "idle";
  cell(row, name, "mono");
  cell(row, amount(m.rate_1s));
  cell(row, canvas, "left");
  for (const key of ["p50_us", "p90_us", "p99_us", "max_us"]) cell(row, duration(m[key]));
  cell(row, amount(m.count));
  cell(row, wrong.map(([word, n]) => `${n} ${word}`).join(", ") || "–", grave ? "left bad" : "left");
  return { row, canvas, name };
}

function note(name, rate) {
  const list = methodHistory.get(name) ?? [];
  list.push(rate);
  if (list.length > PLOT_POINTS) list.shift();
  methodHistory.set(name, list);
}

function showMethods(stats) {
  const all = Object.entries(stats.methods), wanted = byId("all").checked;
  for (const [name, m] of all) note(name, m.rate_1s);
  const rows = all
    .filter(([, m]) => wanted || m.count || Object.keys(m.errors).length)
    .sort(([a, x], [b, y]) => y.rate_10s - x.rate_10s || y.count - x.count || (a < b ? -1 : 1))
    .map(([name, m]) => methodRow(name, m));
  byId("methods").replaceChildren(...rows.map((r) => r.row));
  byId("quiet").hidden = rows.length > 0;
  for (const r of rows) plot(r.canvas, methodHistory.get(r.name));
}

function slowRow(c) {
  const row = document.createElement("tr");
  cell(row, c.method, "mono");
  cell(row, c.instance, "left");
  cell(row, duration(c.us));
  cell(row, duration(c.queue_us));
  cell(row, c.key || "–", "left mono");
  cell(row, c.trace, "left mono");
  cell(row, c.error ?? "–", "left");
  cell(row, new Date(c.time_ms).toLocaleTimeString());
  return row;
}

async function showSlow() {
  if (!byId("slow").open) return;
  const slow = await get("stats/slow");
  byId("slowest").replaceChildren(...slow.calls.map(slowRow));
}

// ---- once a second ----------------------------------------------------------------------------------

async function get(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function refresh() {
  try {
    const [status, live] = await Promise.all([get("status"), get("live")]);
    showHead(status);
    showProcesses(status);
    showCards(live, status);
    showMethods(live.stats);
    await showSlow();
    document.querySelector("main").className = "";
    retry = 0;
  } catch {
    byId("phase").textContent = "the supervisor does not answer";
    byId("phase").className = "pill gone";
    document.querySelector("main").className = "stale"; // what it shows is of before
    retry = Math.min(retry + 1, 5);
  }
  setTimeout(wait, 1000 * (1 + retry));
}

// A page that nobody sees asks nothing.
function wait() {
  if (!document.hidden) refresh();
  else document.addEventListener("visibilitychange", wait, { once: true });
}

byId("slow").addEventListener("toggle", showSlow);
byId("all").addEventListener("change", () => methodHistory.size && get("live").then((live) => showMethods(live.stats)));
wait();
