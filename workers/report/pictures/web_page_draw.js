// Draws the timeline on a canvas.

const canvas = document.getElementById("timeline"), tip = document.getElementById("tip");
const context = canvas.getContext("2d");
const LEAST = Math.min(1000, data.length); // the shortest part that can be shown
const RIGHT = 10, AXIS = 24, OVERVIEW = 14, FAR = 5; // pixels
const SIGNS = {started: "○", ready: "●", ended: "□", stalled: "▲", died: "✕"};
const sign = (kind) => SIGNS[kind] || "◆";

let width = 0, left = 70, bottom = 0, theme = {}, selected = null, row = 1, asked = 0;

// -- what is where

function layOut() {
  const high = data.lanes.length <= 8 ? 28 : data.lanes.length <= 24 ? 20 : 14;
  const heights = {lines: lines.length ? 22 : 4, loop: 28, queue: 44, jobs: high};
  width = canvas.parentElement.clientWidth;
  left = width < 560 ? 62 : 76;
  bottom = 0;
  for (const each of rows) {
    each.top = bottom;
    each.height = heights[each.type];
    bottom += each.height + (each.type === "jobs" ? Math.max(2, high / 7) : 6);
  }
  const ratio = window.devicePixelRatio || 1, height = bottom + AXIS + OVERVIEW + 6;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const style = getComputedStyle(document.documentElement);
  for (const name of ["card", "ink", "quiet", "line", "lane", "waiting", "working", "queue"]) {
    theme[name] = style.getPropertyValue(`--${name}`).trim();
  }
  theme.font = getComputedStyle(document.body).fontFamily;
  draw();
}

const inside = () => Math.max(1, width - left - RIGHT);
const xOf = (at) => left + (at - view.start) / (view.end - view.start) * inside();
const timeOf = (x) => view.start + (x - left) / inside() * (view.end - view.start);
const overviewX = (at) => left + at / data.length * inside();

function firstAfter(items, at) { // the first of these items, which are in order, that ends at this time or later
  let low = 0, high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (items[middle].end < at) low = middle + 1; else high = middle;
  }
  return low;
}

function* visible(items) {
  for (let i = firstAfter(items, view.start); i < items.length && items[i].start <= view.end; i++) yield items[i];
}

function show(start, end) {
  const length = Math.min(Math.max(end - start, LEAST), data.length);
  view.start = Math.min(Math.max(start, 0), data.length - length);
  view.end = view.start + length;
  canvas.dataset.start = view.start / 1e9;
  canvas.dataset.end = view.end / 1e9;
  const range = document.getElementById("range"), told = `${seconds(view.start)} to ${seconds(view.end)} s`;
  const whole = `${told}: ${duration(length)} of ${duration(data.length)}`;
  if (range.textContent !== whole) range.textContent = whole; // screen readers read what changes
  if (!asked) asked = requestAnimationFrame(() => { asked = 0; draw(); });
}

function zoom(factor, at = (view.start + view.end) / 2) {
  const length = Math.min(Math.max((view.end - view.start) * factor, LEAST), data.length);
  const share = (at - view.start) / (view.end - view.start);
  show(at - share * length, at + (1 - share) * length);
}

function move(ns) { show(view.start + ns, view.end + ns); }

// -- drawing

function draw() {
  context.clearRect(0, 0, width, canvas.height);
  context.textBaseline = "middle";
  font(12);
  for (const each of rows) {
    if (each.type !== "lines") {
      context.fillStyle = theme.lane;
      context.fillRect(left, each.top, inside(), each.height);
    }
    context.fillStyle = theme.quiet;
    context.fillText(each.name, 0, each.top + each.height / 2);
  }
  const grid = drawAxis();
  context.save();
  context.beginPath();
  context.rect(left, 0, inside(), bottom);
  context.clip();
  context.fillStyle = theme.line;
  for (const x of grid) context.fillRect(x, rows[1].top, 1, bottom - rows[1].top);
  for (const each of rows) {
    if (each.type === "loop") drawLoop(each);
    if (each.type === "queue") drawQueue(each);
    if (each.type === "jobs") drawJobs(each);
  }
  drawLines();
  context.restore();
  for (const each of rows) if (each.type === "jobs") drawMarks(each);
  drawSelected();
  drawOverview();
}

function font(size) { context.font = `${size}px ${theme.font}`; }

function drawAxis() { // returns where its ticks are
  const shown = (view.end - view.start) / 1e9, rough = shown / Math.max(2, inside() / (width < 560 ? 70 : 110));
  const power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), ticks = [];
  context.textAlign = "center";
  for (let tick = Math.ceil(view.start / 1e9 / step); tick * step <= view.end / 1e9; tick++) {
    const x = xOf(tick * step * 1e9), text = `${(tick * step).toFixed(digits)} s`;
    const half = context.measureText(text).width / 2;
    ticks.push(Math.round(x));
    context.fillStyle = theme.quiet;
    context.fillText(text, Math.min(Math.max(x, left + half), width - half), bottom + AXIS / 2);
  }
  context.textAlign = "left";
  return ticks;
}

function drawShares(pieces, top, height, toX) {
  // In each column of pixels, the share of its time that each colour has: what is smaller than a pixel is not lost.
  const shares = new Map(), right = left + inside();
  for (const [start, end, colour] of pieces) {
    if (!shares.has(colour)) shares.set(colour, new Float64Array(Math.ceil(inside()) + 1));
    const from = Math.max(left, toX(start)) - left, to = Math.min(right, toX(end)) - left, column = shares.get(colour);
    for (let x = Math.floor(from); x < to; x++) column[x] += Math.min(to, x + 1) - Math.max(from, x);
  }
  const used = new Float64Array(Math.ceil(inside()) + 1);
  for (const [colour, column] of shares) {
    context.fillStyle = colour;
    column.forEach((share, x) => {
      if (share > 0) context.fillRect(left + x, top + height * (1 - used[x] - share), 1, height * share);
      used[x] += share;
    });
  }
}

const pieceOf = (step) => [step.start, step.end, step.type === "wait" ? theme.waiting : theme.working];
const isDense = (items) => firstAfter(items, view.end) - firstAfter(items, view.start) > inside() / 2;

function drawLoop({top, height}) {
  if (isDense(steps)) return drawShares([...visible(steps)].map(pieceOf), top, height, xOf);
  for (const [start, end, colour] of [...visible(steps)].map(pieceOf)) {
    context.fillStyle = colour;
    context.fillRect(xOf(start), top, xOf(end) - xOf(start), height);
  }
}

function drawQueue({top, height}) {
  if (!waits.length) return;
  const most = Math.max(1, waits.reduce((found, wait) => Math.max(found, wait.ready), 0));
  const yOf = (ready) => top + height - 1 - ready / most * (height - 4);
  const from = Math.max(0, firstAfter(waits, view.start) - 1);
  context.beginPath();
  context.moveTo(xOf(waits[from].start), top + height);
  let last = waits[from];
  for (let i = from; i < waits.length; i++) {
    last = waits[i];
    context.lineTo(xOf(last.start), yOf(last.ready));
    context.lineTo(xOf(i + 1 < waits.length ? waits[i + 1].start : last.end), yOf(last.ready));
    if (last.start > view.end) break;
  }
  context.strokeStyle = theme.queue;
  context.stroke();
  context.lineTo(xOf(last.end), top + height);
  context.globalAlpha = 0.25;
  context.fillStyle = theme.queue;
  context.fill();
  context.globalAlpha = 1;
  font(11);
  context.fillStyle = theme.quiet;
  context.fillText(`up to ${most} finished`, left + 4, top + 9);
  font(12);
}

function drawJobs({items, top, height}) {
  if (isDense(items)) {
    const parts = [...visible(items)].flatMap((job) => job.parts);
    const pieces = parts.map(({kind, start, time}) => [start, start + time, data.kinds[kind][1]]);
    return drawShares(pieces, top, height, xOf);
  }
  let right = -Infinity; // of the last one
  for (const job of visible(items)) {
    const start = xOf(job.start), end = xOf(job.end), long = end - start;
    if (long >= 3) {
      const gap = long > 8 ? 1 : 0;
      for (const part of job.parts) {
        const from = xOf(part.start), to = Math.min(xOf(part.start + part.time), end - gap);
        const [name, colour] = data.kinds[part.kind];
        context.fillStyle = colour;
        context.fillRect(from, top, Math.max(0, to - from), height);
        if (to - from > 26 && height >= 18) {
          const number = part.kind === job.longest ? `${job.epoch}/${job.index}` : "";
          writeIn(number, name, colour, Math.max(from, left), Math.min(to, width - RIGHT), top + height / 2);
        }
      }
    } else {
      context.fillStyle = data.kinds[job.longest][1];
      context.fillRect(start, top, start > right + 1 ? Math.max(1, long) : long, height);
    }
    right = end;
  }
}

function writeIn(number, name, colour, from, to, y) {
  const fits = (text) => text && context.measureText(text).width + 10 <= to - from;
  const text = [...(number ? [`${number} ${name}`, number] : []), name].find(fits);
  if (!text) return;
  context.fillStyle = inkOn(colour);
  context.fillText(text, from + 5, y);
}

function drawLines() { // incidents of all rows; words where there is room, the choices of "auto" first
  const y = rows[0].height / 2, taken = [];
  const shown = [...visible(lines)].sort((one, other) => (one.kind === "epoch") - (other.kind === "epoch"));
  const isFull = shown.length > 60;
  for (const line of shown) {
    const x = Math.round(xOf(line.start)), isEpoch = line.kind === "epoch";
    if (isEpoch && isFull) continue;
    const next = Math.min(width - RIGHT, ...taken.filter(([start]) => start >= x).map(([start]) => start));
    const isFree = !taken.some(([start, end]) => x >= start && x < end);
    const words = isFree && cut(isEpoch ? `epoch ${line.text}` : line.text || line.kind, Math.min(next - x - 10, 420));
    const [every, long] = isEpoch ? [5, 2] : [bottom, bottom]; // dotted or solid
    context.fillStyle = isEpoch ? theme.quiet : theme.ink;
    for (let at = words ? 0 : rows[1].top; at < bottom; at += every) context.fillRect(x, at, 1, long);
    if (!words) continue;
    context.fillText(words, x + 4, y);
    taken.push([x, x + 12 + context.measureText(words).width]);
  }
}

function drawMarks({marks, top, height}) { // what went wrong is drawn last, over the others, and with words
  const y = top + height / 2, shown = [...visible(marks)], places = shown.map((mark) => xOf(mark.start));
  const isTold = ({kind}) => kind === "died" || kind === "stalled" || !(kind in SIGNS);
  let free = 0;
  for (const mark of shown.filter(isTold)) {
    let x = xOf(mark.start) + 10;
    for (const place of places) if (Math.abs(place - x) < 12) x = place + 10;
    const next = Math.min(width - RIGHT + 6, ...places.filter((place) => place > x)); // another mark, or the edge
    const room = Math.min(260, next - 10 - x);
    const words = cut(mark.text ? `${mark.kind}: ${mark.text}` : mark.kind, room);
    if (height < 18 || x < free || !words) continue;
    const long = context.measureText(words).width;
    context.fillStyle = theme.card;
    context.fillRect(x - 2, y - 9, long + 6, 18);
    context.fillStyle = theme.ink;
    context.fillText(words, x + 1, y);
    free = x + long + 12;
  }
  context.textAlign = "center";
  context.lineJoin = "round";
  context.strokeStyle = theme.card;
  context.fillStyle = theme.ink;
  context.lineWidth = 4;
  font(height > 16 ? 14 : 11);
  for (const mark of [...shown.filter((each) => !isTold(each)), ...shown.filter(isTold)]) {
    context.strokeText(sign(mark.kind), xOf(mark.start), y);
    context.fillText(sign(mark.kind), xOf(mark.start), y);
  }
  context.lineWidth = 1;
  context.textAlign = "left";
  font(12);
}

function drawSelected() {
  const each = selected && rows.find((found) => found === selected.row);
  if (!each || selected.item.type === "incident") return;
  const from = Math.max(left, xOf(selected.item.start)), to = Math.min(width - RIGHT, xOf(selected.item.end));
  if (to < left || from > width - RIGHT) return;
  context.strokeStyle = theme.ink;
  context.lineWidth = 2;
  context.strokeRect(from, each.top, Math.max(2, to - from), each.height);
  context.lineWidth = 1;
}

function drawOverview() { // all waits of the loop, and the part that is shown
  const top = bottom + AXIS, from = overviewX(view.start), to = overviewX(view.end);
  context.fillStyle = theme.lane;
  context.fillRect(left, top, inside(), OVERVIEW);
  drawShares(steps.map(pieceOf), top + 2, OVERVIEW - 4, overviewX);
  context.strokeStyle = theme.ink;
  context.lineWidth = 2;
  context.strokeRect(Math.max(from, left), top, Math.max(3, to - from), OVERVIEW);
  context.lineWidth = 1;
  context.fillStyle = theme.quiet;
  context.fillText("all", 0, top + OVERVIEW / 2);
}

function cut(text, most) { // as much of a text as fits into so many pixels
  if (context.measureText(text).width <= most) return text;
  let length = Math.min(text.length, Math.ceil(most / 4));
  while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > most) length--;
  return length > 2 ? `${text.slice(0, length)}…` : "";
}

function inkOn(colour) { // black or white, whichever can be read on it
  const [r, g, b] = [1, 3, 5].map((i) => (parseInt(colour.slice(i, i + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? "#000000" : "#ffffff";
}
