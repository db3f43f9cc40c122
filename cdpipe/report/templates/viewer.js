// Both dates of a pair on a canvas: pan, zoom, swipe, layers, outlines to click. VIEW says what there is to show.
const VERDICT_LINES = { accepted: [], rejected: [5, 4], unsure: [2, 3] };
const MOST = 40; // CSS pixels that a pixel of the scene is wide at most
const reviewed = new Map(); // verdicts by change, as review.js knows them
let outlineOf = () => null; // of a change that no card shows, for review.js

function makeViewer(viewer) {
  const stage = viewer.querySelector(".stage");
  const canvas = viewer.querySelector("canvas");
  const slider = viewer.querySelector("#slider");
  const opacity = viewer.querySelector("#opacity");
  const outlines = viewer.querySelector("#outlines");
  const where = viewer.querySelector("#where");
  const edge = viewer.querySelector(".edge");
  const pick = viewer.querySelector("#pick");
  const busy = viewer.querySelector(".busy");
  const context = canvas.getContext("2d");
  const pictures = new Map([...document.querySelectorAll("img[data-layer]")].map((image) => [image.dataset.layer, image]));
  const tiles = makeTiles(viewer.dataset.images, ask, () => {
    viewer.querySelector(".unread")?.removeAttribute("hidden");
    ask();
  });
  const changes = VIEW.changes.map(readChange);
  const total = Number(viewer.dataset.objects);
  const stripes = VIEW.stripes && makeStripes(...VIEW.stripes);
  const { width, height, aspect } = VIEW;
  let size = [1, 1]; // of the stage in CSS pixels
  let at = { x: width / 2, y: height / 2, scale: 0 }; // the stage's middle in pixels of the scene; CSS pixels a column
  let asked = false;
  let chosen = null; // a change
  let cross = false; // whether the keyboard moves it

  // Geometry

  const fitting = () => Math.min(size[0] / width, size[1] / (height * aspect));
  const toScene = (x, y) => [at.x + (x - size[0] / 2) / at.scale, at.y + (y - size[1] / 2) / (at.scale * aspect)];
  const toStage = (col, row) => [(col - at.x) * at.scale + size[0] / 2, (row - at.y) * at.scale * aspect + size[1] / 2];

  function look(x, y, scale) {
    const fit = fitting();
    at.scale = Math.min(Math.max(scale, fit), Math.max(MOST, fit));
    const reach = [size[0] / at.scale / 2, size[1] / (at.scale * aspect) / 2];
    const within = (value, half, length) => (2 * half >= length ? length / 2 : Math.min(Math.max(value, half), length - half));
    at.x = within(x, reach[0], width);
    at.y = within(y, reach[1], height);
    stage.classList.toggle("moved", at.scale > fit * 1.001); // then a finger moves the map, else the page
    ask();
  }
  function zoom(factor, x = size[0] / 2, y = size[1] / 2) {
    const [col, row] = toScene(x, y);
    const scale = Math.min(Math.max(at.scale * factor, fitting()), Math.max(MOST, fitting()));
    look(col - (x - size[0] / 2) / scale, row - (y - size[1] / 2) / (scale * aspect), scale);
  }
  function lookAt(change) {
    const [left, top, right, bottom] = change.box;
    const across = Math.max(right - left, (bottom - top) * aspect, 12) * 2.5;
    look((left + right) / 2, (top + bottom) / 2, Math.min(Math.min(...size) / across, 16));
  }

  // Drawing

  function ask() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  }
  function place() {
    const dots = devicePixelRatio || 1;
    const [left, top] = toStage(0, 0);
    context.setTransform(dots * at.scale, 0, 0, dots * at.scale * aspect, dots * left, dots * top);
  }
  function plain() {
    const dots = devicePixelRatio || 1;
    context.setTransform(dots, 0, 0, dots, 0, 0);
  }
  // Tiles where there are any, else the picture of the whole scene. Each place is drawn once and ends at whole dots of
  // the screen, or a line would show between tiles.
  function drawLayer(layer) {
    const dots = devicePixelRatio || 1;
    const widest = 1.5 / (at.scale * dots); // a cell, in pixels of the scene: one and a half on the screen
    context.imageSmoothingQuality = "high";
    const places = tiles.inView(layer, widest, [...toScene(0, 0), ...toScene(...size)]);
    for (const { box, found } of places) {
      context.save();
      cut(box);
      if (found && VIEW.stripes && pictured(layer)) drawStripes(); // where it has no data
      if (found) drawTile(found); else drawPicture(layer);
      context.restore();
    }
    if (places.length) return;
    cut([0, 0, width, height]);
    drawPicture(layer);
  }
  function inDots([left, top, right, bottom]) {
    const [x0, y0, x1, y1] = [...toStage(left, top), ...toStage(right, bottom)].map((value) => Math.round(value * (devicePixelRatio || 1)));
    return [x0, y0, x1 - x0, y1 - y0];
  }
  function cut(box) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.beginPath();
    context.rect(...inDots(box));
    context.clip();
  }
  function smooth(cell) {
    context.imageSmoothingEnabled = at.scale * cell * (devicePixelRatio || 1) < 3;
  }
  function drawTile({ image, cell, left, top }) {
    smooth(cell);
    context.drawImage(image, ...inDots([left, top, left + image.naturalWidth * cell, top + image.naturalHeight * cell]));
  }
  function drawPicture(layer) {
    const picture = pictures.get(layer);
    if (!picture?.complete || !picture.naturalWidth) return;
    smooth(VIEW.cell);
    place();
    context.drawImage(picture, 0, 0, VIEW.cols, VIEW.rows);
  }
  function drawWithin(layer, left, right, alpha = 1) {
    if (right <= left) return;
    context.save();
    plain();
    context.beginPath();
    context.rect(left, 0, right - left, size[1]);
    context.clip();
    context.globalAlpha = alpha;
    drawLayer(layer);
    context.restore();
  }
  function draw() {
    const shown = mode();
    const split = { swipe: (size[0] * slider.value) / 100, before: size[0], after: 0 }[shown];
    const layer = viewer.querySelector("input[name=layer]:checked").value;
    plain();
    context.clearRect(0, 0, ...size);
    drawWithin("before", 0, split);
    drawWithin("after", split, size[0]);
    if (layer && layer !== "probability") { // classes stand out on a pale map, as in the printed plates
      context.save();
      plain();
      const [left, top] = toStage(0, 0), [right, bottom] = toStage(width, height);
      context.globalCompositeOperation = "saturation";
      context.fillStyle = "#808080";
      context.fillRect(left, top, right - left, bottom - top);
      context.globalCompositeOperation = "source-over";
      context.fillStyle = "rgb(255 255 255 / 45%)";
      context.fillRect(left, top, right - left, bottom - top);
      context.restore();
    }
    if (layer) drawWithin(layer, 0, size[0], opacity.value / 100);
    if (outlines.checked) drawOutlines(layer === "probability" && opacity.value > 50);
    if (cross) drawCross();
    edge.hidden = shown !== "swipe";
    edge.style.left = `${slider.value}%`;
    viewer.querySelector(".tag.left").hidden = shown === "after";
    viewer.querySelector(".tag.right").hidden = shown === "before";
    drawScale();
    tiles.forget();
    busy?.toggleAttribute("hidden", !tiles.waiting());
  }
  const pictured = (layer) => layer === "before" || layer === "after";
  function drawStripes() {
    context.fillStyle = context.createPattern(stripes, "repeat");
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  function drawOutlines(onBright) {
    plain();
    const matrix = new DOMMatrix([at.scale, 0, 0, at.scale * aspect, ...toStage(0, 0)]);
    const [left, top] = toScene(0, 0), [right, bottom] = toScene(...size);
    const seen = (box) => box[2] >= left && box[0] <= right && box[3] >= top && box[1] <= bottom;
    const groups = new Map();
    for (const change of changes) {
      if (!seen(change.box) || change === chosen) continue;
      const verdict = reviewed.get(keyOfChange(change)) ?? "";
      if (!groups.has(verdict)) groups.set(verdict, new Path2D());
      groups.get(verdict).addPath(change.path, matrix);
    }
    context.lineJoin = "round";
    for (const [verdict, path] of groups) stroke(path, VERDICT_LINES[verdict] ?? [], onBright ? "#10324f" : "#ffffff", at.scale < 0.6 ? 1 : 1.5);
    if (chosen) {
      const path = new Path2D();
      path.addPath(chosen.path, matrix);
      stroke(path, VERDICT_LINES[reviewed.get(keyOfChange(chosen))] ?? [], "#ffd400", 2.5);
    }
  }
  function stroke(path, dashes, color, line) {
    context.setLineDash([]);
    context.lineWidth = line + 2;
    context.strokeStyle = color === "#10324f" ? "rgb(255 255 255 / 70%)" : "rgb(20 20 20 / 75%)";
    context.stroke(path);
    context.setLineDash(dashes);
    context.lineWidth = line;
    context.strokeStyle = color;
    context.stroke(path);
    context.setLineDash([]);
  }
  function drawCross() {
    const [x, y] = [size[0] / 2, size[1] / 2];
    const path = new Path2D();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      path.moveTo(x + 4 * dx, y + 4 * dy);
      path.lineTo(x + 14 * dx, y + 14 * dy);
    }
    plain();
    stroke(path, [], "#ffffff", 1.5);
  }
  function drawScale() {
    const bar = viewer.querySelector(".scale");
    if (!bar) return;
    const metres = (VIEW.pixel_m / at.scale) * 120; // in as many CSS pixels at most
    const power = 10 ** Math.floor(Math.log10(metres));
    const length = [5, 2, 1].find((step) => step * power <= metres) * power;
    bar.querySelector("i").style.width = `${(length * at.scale) / VIEW.pixel_m}px`;
    bar.querySelector("span").textContent = length >= 1000 ? `${length / 1000} km` : `${Number(length.toPrecision(1))} m`;
  }
  const mode = () => viewer.querySelector("input[name=mode]:checked").value;

  function tell(col, row) {
    where.textContent = placeInWords(col, row);
  }

  // Changes

  const keyOfChange = (change) => `${viewer.dataset.pair}/${change.id}`;
  outlineOf = (key) => {
    const change = changes.find((one) => keyOfChange(one) === key);
    return change ? outlineOfChange(change) : null;
  };
  function changeAt(x, y) {
    const [col, row] = toScene(x, y);
    const reach = 7 / at.scale;
    let best = null;
    context.setTransform(1, 0, 0, 1, 0, 0);
    for (const change of changes) {
      const [left, top, right, bottom] = change.box;
      if (col < left - reach || col > right + reach || row < top - reach / aspect || row > bottom + reach / aspect) continue;
      const inside = context.isPointInPath(change.path, col, row, "evenodd");
      const area = (right - left) * (bottom - top) + (inside ? 0 : width * height);
      if (!best || area < best.area) best = { change, area, near: inside || Math.max(right - left, bottom - top) < 3 * reach };
    }
    return best?.near ? best.change : null;
  }
  function choose(change, { move = false } = {}) {
    chosen = change;
    pick.classList.toggle("some", change !== null);
    if (change) {
      describe(change);
      if (move) lookAt(change);
    }
    pick.querySelector("#pick-count").textContent = change
      ? `${changes.indexOf(change) + 1} of ${changes.length.toLocaleString("en")}`
      : viewer.dataset.objects && `${total.toLocaleString("en")} ${total === 1 ? "change" : "changes"}`;
    ask();
  }
  function describe(change) {
    const [left, top, right, bottom] = change.box;
    const point = degreesAt((left + right) / 2, (top + bottom) / 2);
    const rows = factsOfChange(change, Number(viewer.dataset.models));
    pick.querySelector("h2").textContent = `Change ${change.id}`;
    pick.querySelector("dl").replaceChildren(...rows.map(([name, value]) => {
      const row = document.createElement("div");
      for (const [tag, text] of [["dt", name], ["dd", value]]) row.append(Object.assign(document.createElement(tag), { textContent: text }));
      return row;
    }));
    const links = pick.querySelector(".links");
    links.hidden = !point;
    if (point) {
      const [lon, lat] = [wrapped(point[0]).toFixed(6), point[1].toFixed(6)];
      const deep = Math.min(19, Math.max(2, Math.round(Math.log2(4e7 / (Math.max((right - left), (bottom - top) * aspect, 20) * VIEW.pixel_m)))));
      links.querySelector(".osm").href = `https://www.openstreetmap.org/?mlat=${lat}&mlon=${lon}#map=${deep}/${lat}/${lon}`;
      links.querySelector(".geo").href = `geo:${lat},${lon}`;
    }
    const verdict = pick.querySelector(".verdict");
    if (verdict) {
      pick.querySelector(".change").dataset.change = keyOfChange(change);
      for (const input of verdict.querySelectorAll("input")) input.checked = input.value === reviewed.get(keyOfChange(change));
    }
  }
  function step(by) {
    if (!changes.length) return;
    const next = chosen ? changes.indexOf(chosen) + by : by > 0 ? 0 : -1;
    choose(changes.at(next % changes.length), { move: true });
  }
  function followHash() {
    const id = decodeURIComponent(location.hash.match(/^#look-(.+)$/)?.[1] ?? "");
    const change = changes.find((one) => one.id === id);
    if (!change) return;
    choose(change, { move: true });
    viewer.scrollIntoView({ block: "start" });
  }

  // Hands

  const pointers = new Map();
  let dragged = null; // what a pointer went down on, and how far it went
  let resting = null; // where the mouse was when the page scrolled under it
  let last = null; // where the mouse was
  const local = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  function swipeTo(x) {
    slider.value = String(Math.round((100 * x) / size[0]));
    slid();
  }
  function slid() {
    slider.setAttribute("aria-valuetext", `${slider.value} percent before, the rest after`);
    ask();
  }
  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button") || event.button > 0) return;
    pointers.set(event.pointerId, local(event));
    const [x] = local(event);
    const onEdge = mode() === "swipe" && (event.target === edge || Math.abs(x - (size[0] * slider.value) / 100) < 6);
    dragged = pointers.size > 1 ? { pinch: true } : { edge: onEdge, far: 0 };
    stage.setPointerCapture(event.pointerId);
    if (event.pointerType === "mouse") event.preventDefault(); // or text is selected
    cross = false;
    canvas.focus({ preventScroll: true });
    tell(...toScene(...local(event)));
  });
  stage.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    if (!resting || Math.hypot(event.clientX - resting[0], event.clientY - resting[1]) > 3) resting = null;
    last = [event.clientX, event.clientY];
    const from = pointers.get(event.pointerId);
    if (!from) {
      tell(...toScene(x, y));
      canvas.style.cursor = changeAt(x, y) ? "pointer" : "";
      return;
    }
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      const spread = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      const middle = (point) => [(point[0] + other[0]) / 2, (point[1] + other[1]) / 2];
      const [mx, my] = middle([x, y]), [ox, oy] = middle(from);
      zoom(spread([x, y]) / Math.max(spread(from), 1), mx, my);
      look(at.x - (mx - ox) / at.scale, at.y - (my - oy) / (at.scale * aspect), at.scale);
    } else if (dragged?.edge) {
      swipeTo(Math.min(Math.max(x, 0), size[0]));
    } else if (dragged && !dragged.pinch) {
      dragged.far += Math.hypot(x - from[0], y - from[1]);
      if (dragged.far > 4) look(at.x - (x - from[0]) / at.scale, at.y - (y - from[1]) / (at.scale * aspect), at.scale);
    }
    pointers.set(event.pointerId, [x, y]);
    tell(...toScene(x, y));
  });
  stage.addEventListener("pointerup", (event) => {
    if (dragged && !dragged.pinch && !dragged.edge && dragged.far <= 4 && pointers.size === 1) choose(changeAt(...local(event)));
    pointers.delete(event.pointerId);
    if (!pointers.size) dragged = null;
  });
  stage.addEventListener("pointercancel", (event) => {
    pointers.delete(event.pointerId);
    dragged = null;
  });
  stage.addEventListener("pointerleave", (event) => {
    if (!pointers.size && event.pointerType === "mouse") where.textContent = where.dataset.rest;
  });
  addEventListener("scroll", () => { resting = last; }, { passive: true });
  stage.addEventListener("wheel", (event) => {
    if (resting && !event.ctrlKey) return; // the page scrolls and came by here
    const pixels = event.deltaY * (event.deltaMode === 1 ? 30 : event.deltaMode === 2 ? 400 : 1);
    if (pixels > 0 && !event.ctrlKey && !stage.classList.contains("moved")) return; // all is seen already
    event.preventDefault();
    zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0018)), ...local(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 0.5 : 2, ...local(event)));
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 240 : 60;
    const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    const acts = {
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), _: () => zoom(1 / 1.5), 0: () => look(width / 2, height / 2, 0),
      n: () => step(1), p: () => step(-1), b: blink, o: () => { outlines.checked = !outlines.checked; ask(); },
      Enter: () => choose(changeAt(size[0] / 2, size[1] / 2)), Escape: () => choose(null),
    };
    const act = moves[event.key]
      ? () => look(at.x + moves[event.key][0] / at.scale, at.y + moves[event.key][1] / (at.scale * aspect), at.scale)
      : acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    cross = Boolean(moves[event.key]) || (cross && event.key !== "Escape");
    act();
    tell(at.x, at.y);
  });
  canvas.addEventListener("blur", () => { cross = false; ask(); });
  function blink() {
    const next = mode() === "before" ? "after" : "before";
    viewer.querySelector(`input[name=mode][value=${next}]`).checked = true;
    ask();
  }
  const on = (name, act) => viewer.querySelector(name)?.addEventListener("click", act);
  on("#zoom-in", () => zoom(1.6));
  on("#zoom-out", () => zoom(1 / 1.6));
  on("#zoom-all", () => look(width / 2, height / 2, 0));
  on("#pick-next", () => step(1));
  on("#pick-previous", () => step(-1));
  on("#pick-close", () => { choose(null); canvas.focus(); });
  slider.addEventListener("input", slid);
  for (const input of viewer.querySelectorAll("#opacity, #outlines, [name=layer], [name=mode]")) input.addEventListener("input", ask);
  for (const image of pictures.values()) image.addEventListener("load", ask);
  addEventListener("hashchange", followHash);
  document.addEventListener("verdicts", ask);

  function fill() {
    const room = stage.clientWidth;
    const high = Math.max(300, Math.min((room * height * aspect) / width, innerHeight * 0.78));
    const whole = !at.scale || at.scale <= fitting() * 1.001;
    size = [room, Math.round(high)];
    stage.style.height = `${size[1]}px`;
    const dots = devicePixelRatio || 1;
    canvas.width = Math.round(size[0] * dots);
    canvas.height = Math.round(size[1] * dots);
    look(at.x, at.y, whole ? 0 : at.scale);
  }
  new ResizeObserver(fill).observe(stage);
  addEventListener("resize", fill);
  for (const name of ["#pick-next", "#pick-previous"]) viewer.querySelector(name).disabled = !changes.length;
  fill();
  slid();
  choose(null);
  followHash();
}

document.addEventListener("DOMContentLoaded", () => {
  const viewer = document.querySelector("#viewer");
  if (viewer) makeViewer(viewer);
});
