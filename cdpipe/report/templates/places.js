// Where pixels lie and what a change is, as a page tells it. VIEW says what it is made of; nothing here draws.
function degreesAt(col, row) {
  const nodes = VIEW.place.nodes;
  if (!nodes) return null;
  const parts = nodes.length - 1;
  const along = (value, length) => {
    const part = Math.min(Math.max((value / length) * parts, 0), parts);
    const first = Math.min(Math.floor(part), parts - 1);
    return [first, part - first];
  };
  const [i, down] = along(row, VIEW.height), [j, right] = along(col, VIEW.width);
  return [0, 1].map((axis) =>
    (nodes[i][j][axis] * (1 - right) + nodes[i][j + 1][axis] * right) * (1 - down) +
    (nodes[i + 1][j][axis] * (1 - right) + nodes[i + 1][j + 1][axis] * right) * down);
}
const wrapped = (lon) => lon - 360 * Math.floor((lon + 180) / 360);
function inDegrees([lon, lat]) {
  const digits = Math.min(7, Math.max(3, Math.ceil(5.05 - Math.log10(VIEW.pixel_m || 1)))); // a pixel or finer
  const east = wrapped(lon);
  return `${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(east).toFixed(digits)}° ${east < 0 ? "W" : "E"}`;
}
function placeInWords(col, row) {
  if (col < 0 || row < 0 || col >= VIEW.width || row >= VIEW.height) return "outside of the scene";
  const told = [];
  const point = degreesAt(col, row);
  if (point) told.push(inDegrees(point));
  if (VIEW.place.transform && !/^EPSG:4326$/.test(VIEW.place.crs)) {
    const [a, b, c, d, e, f] = VIEW.place.transform;
    const digits = Math.max(0, Math.ceil(-Math.log10(Math.hypot(a, d))));
    told.push(`x ${(a * col + b * row + c).toFixed(digits)}, y ${(d * col + e * row + f).toFixed(digits)} (${VIEW.place.crs})`);
  }
  told.push(`column ${Math.floor(col)}, row ${Math.floor(row)}`);
  return told.join(" · ");
}

// A change with its rings in columns and rows, its path and its box, of the steps that VIEW has.
function readChange(change) {
  const path = new Path2D();
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  const rings = change.rings.map((steps) => {
    let [col, row] = [0, 0];
    const ring = [];
    for (let i = 0; i < steps.length; i += 2) {
      ring.push([(col += steps[i] / 4), (row += steps[i + 1] / 4)]);
      box[0] = Math.min(box[0], col); box[1] = Math.min(box[1], row);
      box[2] = Math.max(box[2], col); box[3] = Math.max(box[3], row);
      if (i) path.lineTo(col, row); else path.moveTo(col, row);
    }
    path.closePath();
    return ring;
  });
  return { ...change, rings, path, box };
}
function areaOfChange(change) {
  if (change.area_m2 === null || VIEW.pixel_m === null) return `${change.pixels.toLocaleString("en")} px`;
  const [unit, one] = [["km²", 1e6], ["ha", 1e4], ["m²", 1]].find(([, each]) => change.area_m2 >= each || each === 1);
  const value = change.area_m2 / one;
  return `${value >= 100 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(3))} ${unit}`;
}
function outlineOfChange(change) {
  const polygon = change.rings.map((ring) => [...ring, ring[0]].map(([col, row]) =>
    (degreesAt(col, row) ?? [col, row]).map((value) => Number(value.toFixed(7)))));
  return { type: "Polygon", coordinates: polygon };
}
function factsOfChange(change, models) {
  const [left, top, right, bottom] = change.box;
  const point = degreesAt((left + right) / 2, (top + bottom) / 2);
  return [
    ["Area", `${areaOfChange(change)}${VIEW.pixel_m === null || change.pixels === null ? "" : ` (${change.pixels.toLocaleString("en")} px)`}`],
    ["Probability", `${change.probability_mean.toFixed(2)} mean${change.probability_max === null ? "" : `, ${change.probability_max.toFixed(2)} at most`}`],
    ...(models > 1 && change.agreement !== null ? [["Agreement of models", change.agreement.toFixed(2)]] : []),
    ["Place", point ? inDegrees(point) : `column ${Math.round((left + right) / 2)}, row ${Math.round((top + bottom) / 2)}`],
  ];
}
