// Verdicts on changes: kept in this browser, saved as a GeoJSON file that `cdpipe review` reads.
const VERDICTS = ["accepted", "rejected", "unsure"];

function makeReview(tools) {
  const { run } = document.body.dataset;
  const report = REPORT; // of all its results, at the head of this file
  const store = `cdpipe-review:${run}:${report}`;
  const known = new Map(JSON.parse(document.querySelector("#review-data").textContent).map((one) => [one.id, one]));
  let verdicts = recall();

  // of other pages of this report, too: each verdict is kept with its outline
  function recall() {
    try {
      return new Map(Object.entries(JSON.parse(localStorage.getItem(store) || "{}")));
    } catch {
      return new Map(); // storage is off or damaged: verdicts last as long as the page
    }
  }
  function keep() {
    try {
      localStorage.setItem(store, JSON.stringify(Object.fromEntries(verdicts)));
    } catch {
      tools.dataset.lost = "yes";
    }
    show();
  }
  function show() {
    reviewed.clear(); // the map's outlines show them, too
    for (const [id, one] of verdicts) reviewed.set(id, one.properties.verdict);
    document.dispatchEvent(new Event("verdicts"));
    for (const card of document.querySelectorAll(".change")) {
      const verdict = verdicts.get(card.dataset.change)?.properties.verdict;
      for (const input of card.querySelectorAll("input")) input.checked = input.value === verdict;
    }
    const counts = VERDICTS.map((name) => [...verdicts.values()].filter((one) => one.properties.verdict === name).length);
    const lost = tools.dataset.lost ? " This browser keeps nothing: save before you leave." : "";
    tools.querySelector("output").textContent =
      `${verdicts.size} reviewed: ${counts[0]} accepted, ${counts[1]} rejected, ${counts[2]} unsure.${lost}`;
    tools.querySelector("#review-save").disabled = verdicts.size === 0;
  }
  function judge(id, verdict) {
    verdicts = recall().size ? recall() : verdicts; // another tab may have added some
    const feature = known.get(id) ?? drawn(id);
    verdicts.set(id, { ...feature, properties: { ...feature.properties, verdict } });
    keep();
  }
  function drawn(id) { // of the map, where no card shows it
    const [pair_id, change] = [id.slice(0, id.indexOf("/")), id.slice(id.indexOf("/") + 1)];
    return { type: "Feature", id, geometry: outlineOf(id), properties: { pair_id, change, pixels: VIEW.pixel_m === null } };
  }
  function save() {
    const features = [...verdicts.values()].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    const collection = { type: "FeatureCollection", cdpipe: { format: 1, run, report }, features };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(collection, null, 1) + "\n"], { type: "application/geo+json" }));
    link.download = "review.geojson";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
  async function load(file) {
    let found;
    try {
      found = JSON.parse(await file.text());
      if (found.cdpipe.run !== run || found.cdpipe.report !== report) throw new Error("of another run");
      for (const one of found.features) if (VERDICTS.includes(one.properties.verdict)) verdicts.set(one.id, one);
    } catch (error) {
      tools.querySelector("output").textContent = `${file.name} is no review of this report (${error.message}).`;
      return;
    }
    keep();
  }

  document.addEventListener("change", (event) => {
    const card = event.target.closest(".change");
    if (card && event.target.type === "radio") judge(card.dataset.change, event.target.value);
  });
  document.addEventListener("keydown", (event) => {
    const card = event.target.closest?.(".change");
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const verdict = { a: "accepted", r: "rejected", u: "unsure" }[key];
    const next = { j: card.nextElementSibling, k: card.previousElementSibling }[key]; // of the gallery
    if (verdict) judge(card.dataset.change, verdict);
    if (next) next.querySelector("input:checked, input")?.focus();
  });
  tools.querySelector("#review-save").addEventListener("click", save);
  tools.querySelector("#review-load").addEventListener("change", (event) => {
    if (event.target.files[0]) load(event.target.files[0]);
    event.target.value = "";
  });
  tools.querySelector("#review-clear").addEventListener("click", () => {
    if (verdicts.size && !confirm(`Forget ${verdicts.size} verdicts of this report?`)) return;
    verdicts = new Map();
    keep();
  });
  const all = document.querySelector("#show-all");
  if (all) all.addEventListener("click", () => document.querySelector(".gallery").classList.add("all"));
  addEventListener("storage", (event) => {
    if (event.key !== store) return;
    verdicts = recall();
    show();
  });
  show();
}

document.addEventListener("DOMContentLoaded", () => {
  const tools = document.querySelector("#review");
  if (tools) makeReview(tools);
});
