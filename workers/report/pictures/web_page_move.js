// Zooms and moves the timeline by wheel, pointers and keys, and tells what is under the pointer.

const pointers = new Map(); // {id of a pointer that is down: {x, y}}
let dragged = 0; // pixels since the first pointer went down
let isOnOverview = false;

function placeOf(event) {
  const box = canvas.getBoundingClientRect();
  return {x: event.clientX - box.left, y: event.clientY - box.top};
}

// -- what is under the pointer

function find({x, y}) { // the item at this place, and its row
  const row = rows.find(({top, height}) => y >= top && y < top + height);
  if (!row || x < left - FAR || x > width) return null;
  const near = (items) => items
    .filter((item) => Math.abs(xOf(item.start) - x) <= 8)
    .sort((one, other) => Math.abs(xOf(one.start) - x) - Math.abs(xOf(other.start) - x))[0];
  const mark = row.type === "jobs" ? near(row.marks) : near(lines);
  if (mark && (row.type !== "loop" || Math.abs(xOf(mark.start) - x) < 3)) return {row, item: mark};
  if (row.type === "queue") {
    const item = waits[Math.min(firstAfter(waits, timeOf(x)), waits.length - 1)];
    return item ? {row, item} : null;
  }
  const at = timeOf(x), i = firstAfter(row.items, at);
  const distance = (item) => Math.max(xOf(item.start) - x, x - xOf(item.end), 0);
  const item = row.items.slice(Math.max(0, i - 1), i + 2).sort((one, other) => distance(one) - distance(other))[0];
  return item && distance(item) <= FAR ? {row, item} : null;
}

function made(tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
}

function told({row, item}) { // the elements of its description
  if (item.type === "job") {
    const total = item.end - item.start;
    return [
      made("strong", `batch ${item.index} of epoch ${item.epoch}`),
      made("div", `${row.name}: ${duration(total)}, from ${seconds(item.start)} s`),
      ...item.parts.map(({kind, time}) => {
        const line = made("div", "", "row"), swatch = made("i", ""), [name, colour] = data.kinds[kind];
        swatch.style.background = colour;
        line.append(swatch, ...[name, duration(time), percent(time / total)].map((text) => made("span", text)));
        return line;
      }),
    ];
  }
  const title = {
    wait: `the loop waited ${duration(item.end - item.start)}`,
    step: `the loop worked ${duration(item.end - item.start)}`,
    incident: item.kind === "epoch" ? `epoch ${item.text} starts` : item.kind,
  }[item.type];
  const lines = [made("strong", title)];
  if (item.type === "incident" && item.kind !== "epoch" && item.text) lines.push(made("div", item.text));
  if (item.type === "wait") lines.push(made("div", `${item.ready} finished when it asked for a batch`));
  lines.push(made("div", `${item.lane >= 0 ? `${row.name}, ` : ""}at ${seconds(item.start)} s`));
  return lines;
}

function percent(share) {
  return `${share < 0.0995 && share >= 0.0005 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;
}

function tell(found, place) {
  selected = found;
  tip.hidden = !found;
  canvas.dataset.selected = found ? found.item.type : "";
  if (found) {
    tip.replaceChildren(...told(found));
    tip.style.left = `${Math.max(0, Math.min(place.x + 14, width - tip.offsetWidth))}px`;
    tip.style.top = `${found.row.top + found.row.height + 8}px`;
  }
  show(view.start, view.end);
}

// -- wheel and pointers

let scrolledAt = -Infinity; // when the page was scrolled last
document.addEventListener("scroll", () => { scrolledAt = performance.now(); }, {passive: true});

canvas.addEventListener("wheel", (event) => {
  // Who scrolls down the page comes past the timeline: that does not zoom, and neither does what has no effect here.
  if (performance.now() - scrolledAt < 300) return;
  const pixels = event.deltaMode ? 16 : 1, isAll = view.end - view.start >= data.length;
  const isSideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
  if (isAll && (isSideways || event.deltaY > 0)) return;
  event.preventDefault();
  const by = (isSideways && event.deltaX ? event.deltaX : event.deltaY) * pixels;
  if (isSideways) move(by / inside() * (view.end - view.start));
  else zoom(Math.exp(Math.max(-1, Math.min(1, by * (event.ctrlKey ? 0.01 : 0.002)))), timeOf(placeOf(event).x));
  hover(event);
}, {passive: false});

function hover(event) { const place = placeOf(event); tell(find(place), place); }

canvas.addEventListener("pointerdown", (event) => {
  const place = placeOf(event);
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place);
  if (pointers.size === 1) dragged = 0;
  isOnOverview = place.y >= bottom + AXIS - 4;
  if (isOnOverview) centre(place.x);
});

canvas.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId), place = placeOf(event);
  if (!before) {
    if (event.pointerType !== "touch") hover(event);
    return;
  }
  const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, each]) => each);
  dragged += Math.abs(place.x - before.x) + Math.abs(place.y - before.y);
  if (isOnOverview) centre(place.x);
  else if (other) pinch(other.x, before.x, place.x);
  else if (dragged > FAR) move((before.x - place.x) / inside() * (view.end - view.start));
  pointers.set(event.pointerId, place);
  canvas.classList.toggle("dragged", dragged > FAR);
  if (dragged > FAR) tell(null);
});

for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    const wasTap = pointers.delete(event.pointerId) && name === "pointerup" && dragged <= FAR && !isOnOverview;
    canvas.classList.remove("dragged");
    if (wasTap) hover(event);
  });
}
canvas.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse" && !pointers.size) tell(null);
});
canvas.addEventListener("dblclick", () => show(0, data.length));
document.addEventListener("pointerdown", (event) => { if (event.target !== canvas) tell(null); });

function pinch(fixed, before, now) { // the times under both fingers stay under them
  if (Math.abs(now - fixed) > 8 && Math.abs(before - fixed) > 8) zoom((before - fixed) / (now - fixed), timeOf(fixed));
}

function centre(x) {
  const half = (view.end - view.start) / 2, at = (x - left) / inside() * data.length;
  show(at - half, at + half);
}

// -- keys and buttons

function choose(by) { // the next or previous job or step in the chosen row
  const items = [...rows[row].items, ...(rows[row].marks || [])].sort((one, other) => one.start - other.start);
  if (!items.length) return;
  const at = selected && selected.row === rows[row] ? items.indexOf(selected.item) + by : firstAfter(items, view.start);
  const item = items[Math.max(0, Math.min(at, items.length - 1))], half = (view.end - view.start) / 2;
  if (item.start < view.start || item.end > view.end) show(item.start - half, item.start + half);
  tell({row: rows[row], item}, {x: Math.max(left, xOf(item.start))});
}

function press(key, isShifted = false) { // returns whether the key means something
  const shown = view.end - view.start, chosen = {ArrowLeft: -1, ArrowRight: 1}[key];
  if (chosen && isShifted) {
    choose(chosen);
    return true;
  }
  tell(null);
  if (chosen) move(chosen * shown / 5);
  else if (key === "+" || key === "=") zoom(1 / 1.5);
  else if (key === "-" || key === "−") zoom(1.5);
  else if (key === "0") show(0, data.length);
  else if (key === "Home") show(0, shown);
  else if (key === "End") show(data.length - shown, data.length);
  else if (key === "ArrowUp" || key === "ArrowDown") {
    const able = rows.filter((each) => each.items.length), at = able.indexOf(rows[row]);
    row = rows.indexOf(able[Math.max(0, Math.min(at + (key === "ArrowUp" ? -1 : 1), able.length - 1))]);
    choose(0);
  } else return key === "Escape";
  return true;
}

canvas.addEventListener("keydown", (event) => {
  if (!event.ctrlKey && !event.metaKey && !event.altKey && press(event.key, event.shiftKey)) event.preventDefault();
});
for (const button of document.querySelectorAll("[data-key]")) {
  button.addEventListener("click", () => press(button.dataset.key));
}
for (const button of document.querySelectorAll(".show")) {
  button.addEventListener("click", () => {
    const start = +button.dataset.start, end = +button.dataset.end, pad = Math.max((end - start) * 0.75, 2e7);
    show(start - pad, end + pad);
    const isIt = (item) => item.type === "job" && item.start === start && item.end === end;
    const row = rows.find((each) => each.items.some(isIt));
    canvas.scrollIntoView({block: "center"});
    canvas.focus({preventScroll: true});
    tell(row ? {row, item: row.items.find(isIt)} : null, {x: Math.max(left, xOf(start))});
  });
}

// -- the beginning

for (const kind of new Set(incidents.filter((each) => !isLine(each)).map((each) => each.kind))) {
  const item = made("li", "");
  item.append(made("span", sign(kind), "sign"), kind);
  document.getElementById("legend").append(item);
}
show(view.start, view.end);
new ResizeObserver(layOut).observe(canvas.parentElement);
for (const query of ["(prefers-color-scheme: dark)", `(resolution: ${window.devicePixelRatio}dppx)`]) {
  window.matchMedia(query).addEventListener("change", layOut);
}
