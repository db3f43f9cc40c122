// Pictures of a scene, level by level: asked for only where somebody looks. VIEW.levels, finest first, says which there are.
const KEPT_TILES = 240;

function makeTiles(folder, loaded, failed) {
  const images = new Map();
  const suffix = (layer) => (["before", "after", "probability"].includes(layer) ? VIEW.photos : "webp");
  const has = (level, layer, index) => (parseInt(level.has[layer]?.[index >> 2] ?? "0", 16) >> (3 - (index & 3))) & 1;

  function ask(name) {
    let image = images.get(name);
    images.delete(name); // the one asked for last goes to the end
    if (!image) {
      image = new Image();
      image.onload = loaded;
      image.onerror = failed;
      image.src = folder + name;
    }
    images.set(name, image);
    return image;
  }
  // The finest picture there is of a tile's place, which is asked for, or until it comes a coarser one that is there.
  function best(layer, target, row, col) {
    let asked = false;
    for (let up = target; up < VIEW.levels.length; up++) {
      const level = VIEW.levels[up];
      const [i, j] = [row >> (up - target), col >> (up - target)]; // sides double from level to level
      if (!has(level, layer, i * level.cols + j)) continue;
      const name = `tiles/${layer}/${level.cell}/${i}-${j}.${suffix(layer)}`;
      const image = asked ? images.get(name) : ask(name);
      asked = true;
      if (image?.complete && image.naturalWidth) return { image, cell: level.cell, left: j * VIEW.tile * level.cell, top: i * VIEW.tile * level.cell };
    }
    return null;
  }
  // What to draw of a layer in a window of the scene where cells may be so many pixels wide: each place once, since
  // layers are see-through. None where the picture of the whole scene does.
  function inView(layer, widest, [left, top, right, bottom]) {
    if (VIEW.cell <= widest || !VIEW.levels.length) return [];
    const places = [];
    const target = Math.max(VIEW.levels.findLastIndex((level) => level.cell <= widest), 0);
    const side = VIEW.tile * VIEW.levels[target].cell;
    for (let row = Math.max(0, Math.floor(top / side)); row * side < Math.min(bottom, VIEW.height); row++) {
      for (let col = Math.max(0, Math.floor(left / side)); col * side < Math.min(right, VIEW.width); col++) {
        const box = [col * side, row * side, Math.min((col + 1) * side, VIEW.width), Math.min((row + 1) * side, VIEW.height)];
        places.push({ box, found: best(layer, target, row, col) });
      }
    }
    return places;
  }
  function forget() {
    while (images.size > KEPT_TILES) images.delete(images.keys().next().value);
  }
  const waiting = () => [...images.values()].some((image) => !image.complete);
  return { inView, forget, waiting };
}

// A swatch of what shows through tiles where there is no data, to be laid side by side.
function makeStripes(ground, stripe) {
  const swatch = new OffscreenCanvas(8, 8);
  const brush = swatch.getContext("2d");
  for (let y = 0; y < 8; y++) {
    for (let x = 0; x < 8; x++) {
      brush.fillStyle = (x + y) % 8 < 2 ? stripe : ground;
      brush.fillRect(x, y, 1, 1);
    }
  }
  return swatch;
}
