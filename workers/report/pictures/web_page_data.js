"use strict";
// Reads the records of the timeline, and puts its numbers into words. Times are nanoseconds since the first record.
// With web_page_draw.js and web_page_move.js, which follow, this is one script.

const data = JSON.parse(document.getElementById("data").textContent);
const isLine = (incident) => incident.lane < 0; // through all rows

const jobs = data.jobs.map(([lane, epoch, index, start, time, ...stages]) => {
  const parts = [];
  let at = start;
  for (let i = 0; i < stages.length; i += 2) {
    parts.push({kind: stages[i], start: at, time: stages[i + 1]});
    at += stages[i + 1];
  }
  // What is left belongs to no stage; measured separately, stages may exceed their job by some ns.
  if (start + time > at || !parts.length) parts.push({kind: data.kinds.length - 1, start: at, time: start + time - at});
  const longest = parts.reduce((one, other) => (other.time > one.time ? other : one));
  return {type: "job", lane, epoch, index, start, end: start + time, parts, longest: longest.kind};
});
const steps = [];
data.steps.forEach(([asked, got, ready], i) => {
  steps.push({type: "wait", start: asked, end: got, ready});
  if (i + 1 < data.steps.length) steps.push({type: "step", start: got, end: data.steps[i + 1][0], ready});
});
const incidents = data.incidents.map(([at, lane, kind, text]) => (
  {type: "incident", start: at, end: at, lane, kind, text}
));
const lines = incidents.filter(isLine);
const waits = steps.filter((step) => step.type === "wait");

// The rows, from the top; where each is drawn is found by layOut().
const rows = [{type: "lines", name: "", items: lines}, {type: "loop", name: "loop", items: steps}];
if (data.queue || waits.some((wait) => wait.ready)) rows.push({type: "queue", name: "queue", items: []});
data.lanes.forEach((name, lane) => rows.push({
  type: "jobs", name, lane, items: jobs.filter((job) => job.lane === lane),
  marks: incidents.filter((incident) => incident.lane === lane),
}));

// The part that is shown.
const view = {start: data.view[0], end: data.view[1]};

// -- words

function seconds(at) { // as many digits as the part that is shown needs
  const shown = view.end - view.start;
  return (at / 1e9).toFixed(Math.min(9, Math.max(1, 3 - Math.floor(Math.log10(shown / 1e9)))));
}

function duration(ns) {
  for (const [unit, scale] of [["s", 1e9], ["ms", 1e6], ["us", 1e3]]) {
    if (ns >= 0.9995 * scale) return `${three(ns / scale)} ${unit}`;
  }
  return `${three(ns)} ns`;
}

function three(value) {
  return value >= 99.95 ? Math.round(value).toLocaleString("en-US") : String(+value.toPrecision(3));
}
