// A strict reader of Prometheus' text format 0.0.4, from standard input: prints each breach, exits 1 if there was one.
// What it holds to: https://github.com/prometheus/docs, "Text-based format", and what promtool says of names and units.
import { readFileSync } from "node:fs";

const text = readFileSync(0, "utf8");
const breaches = [];
const families = new Map(); // name → { type, help, done, series: Map(labels → value) }
let current = null, number = 0;

function breach(what) {
  breaches.push(`line ${number}: ${what}`);
}

function labelsOf(line, at) {
  const labels = {};
  if (line[at] !== "{") return [labels, at];
  at++;
  while (line[at] !== "}") {
    const m = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"/.exec(line.slice(at));
    if (!m) {
      breach(`labels: ${line}`);
      return [labels, -1];
    }
    if (m[1] in labels) breach(`label ${m[1]} twice: ${line}`);
    if (m[1].startsWith("__")) breach(`label ${m[1]} is reserved`);
    labels[m[1]] = m[2];
    at += m[0].length;
    if (line[at] === ",") at++;
    else if (line[at] !== "}") breach(`labels: ${line}`);
  }
  return [labels, at + 1];
}

function familyOf(name, labels) {
  const exact = families.get(name);
  if (exact) return exact;
  const base = name.replace(/_(bucket|sum|count)$/, ""), f = families.get(base);
  if (f?.type === "histogram" && (name.endsWith("_bucket") === "le" in labels)) return f;
  return null;
}

function comment(line) {
  const m = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
  if (!m) return breach(`comment: ${line}`);
  const [, kind, name, rest] = m;
  if (current?.name !== name) {
    if (families.has(name)) breach(`${name} comes in two places`);
    current = { name, series: new Map(), type: null, help: null };
    families.set(name, current);
  }
  if (current.series.size) breach(`${kind} of ${name} after its samples`);
  if (kind === "TYPE") {
    if (current.type) breach(`TYPE of ${name} twice`);
    if (!["counter", "gauge", "histogram", "summary", "untyped"].includes(rest)) breach(`TYPE ${rest}`);
    current.type = rest;
    if (rest === "counter" !== name.endsWith("_total")) breach(`${name} is a ${rest}: only counters end in _total`);
    if (/_(ms|us|ns|milliseconds|microseconds|kb|kilobytes|percent)$/.test(name)) breach(`${name}: not a base unit`);
  } else {
    if (current.help) breach(`HELP of ${name} twice`);
    current.help = rest;
  }
}

function sample(line) {
  const name = /^[a-zA-Z_:][a-zA-Z0-9_:]*/.exec(line)?.[0];
  if (!name) return breach(`no name: ${line}`);
  const [labels, at] = labelsOf(line, name.length);
  if (at < 0) return undefined;
  const m = /^ ([+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf)|NaN)$/.exec(line.slice(at)), f = familyOf(name, labels);
  if (!m) return breach(`no value: ${line}`);
  if (!f?.type || !f.help) return breach(`${name} has no TYPE or no HELP before it`);
  if (f !== current) breach(`${name} does not stand with its family`);
  if (!labels.instance) breach(`${name} has no instance`);
  const key = name + JSON.stringify(Object.entries(labels).sort());
  if (f.series.has(key)) breach(`${key} twice`);
  const value = m[1].endsWith("Inf") ? (m[1][0] === "-" ? -Infinity : Infinity) : Number(m[1]);
  if (f.type === "counter" && !(value >= 0)) breach(`a counter below zero: ${line}`);
  f.series.set(key, { name, labels, value });
  return undefined;
}

// Each histogram: buckets that grow with le up to +Inf, which is _count; and a _sum.
function histogram(f) {
  const groups = new Map();
  for (const { name, labels, value } of f.series.values()) {
    const { le, ...rest } = labels, key = JSON.stringify(Object.entries(rest).sort());
    const g = groups.get(key) ?? { buckets: [] };
    if (le !== undefined) g.buckets.push([le === "+Inf" ? Infinity : Number(le), value]);
    else if (name.endsWith("_sum")) g.sum = value;
    else if (name.endsWith("_count")) g.count = value;
    else breach(`${name} in a histogram`);
    groups.set(key, g);
  }
  for (const [key, g] of groups) {
    for (let i = 1; i < g.buckets.length; i++) {
      if (!(g.buckets[i][0] > g.buckets[i - 1][0])) breach(`${f.name}${key}: le does not grow`);
      if (g.buckets[i][1] < g.buckets[i - 1][1]) breach(`${f.name}${key}: a bucket is smaller than the one before`);
    }
    if (g.buckets.at(-1)?.[0] !== Infinity) breach(`${f.name}${key}: no +Inf bucket`);
    else if (g.buckets.at(-1)[1] !== g.count) breach(`${f.name}${key}: _count is not the +Inf bucket`);
    if (g.sum === undefined) breach(`${f.name}${key}: no _sum`);
  }
}

if (!text.endsWith("\n")) breach("the last line has no end");
for (const line of text.split("\n").slice(0, -1)) {
  number++;
  if (line === "") breach("an empty line");
  else if (line[0] === "#") comment(line);
  else sample(line);
}
for (const f of families.values()) {
  if (!f.series.size) breach(`${f.name} has no samples`);
  if (f.type === "histogram") histogram(f);
}
for (const b of breaches.slice(0, 20)) console.log(b);
console.log(`${families.size} families, ${[...families.values()].reduce((n, f) => n + f.series.size, 0)} samples, ${breaches.length} breaches`);
process.exit(breaches.length ? 1 : 0);
