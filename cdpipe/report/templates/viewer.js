// Two dates under a slider, with a layer over them.
function makeViewer(viewer) {
  const stage = viewer.querySelector(".stage");
  const slider = viewer.querySelector("#slider");
  const opacity = viewer.querySelector("#opacity");
  const second = stage.querySelector(".second");
  const edge = stage.querySelector(".edge");
  const layers = [...stage.querySelectorAll("img.over")];

  const shape = Number(stage.dataset.width) / Number(stage.dataset.height);
  stage.style.aspectRatio = String(shape);
  viewer.style.maxWidth = `${(82 * shape).toFixed(2)}vh`; // as high as the window at most

  function divide() {
    second.style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    edge.style.left = `${slider.value}%`;
    slider.setAttribute("aria-valuetext", `${slider.value} percent before, the rest after`);
  }
  function lay() {
    const chosen = viewer.querySelector("input[name=layer]:checked").value;
    for (const layer of layers) {
      layer.hidden = layer.dataset.layer !== chosen;
      layer.style.opacity = String(opacity.value / 100);
    }
    // classes stand out on a pale map, as in the printed plates
    viewer.classList.toggle("pale", chosen !== "" && chosen !== "probability");
  }
  function drag(event) {
    if (!(event.buttons & 1) && event.type !== "pointerdown") return;
    const box = stage.getBoundingClientRect();
    slider.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
    divide();
  }
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    event.preventDefault(); // or the browser drags the image away
    drag(event);
  });
  stage.addEventListener("pointermove", drag);
  slider.addEventListener("input", divide);
  opacity.addEventListener("input", lay);
  for (const choice of viewer.querySelectorAll("input[name=layer]")) choice.addEventListener("change", lay);
  divide();
  lay();
}

document.addEventListener("DOMContentLoaded", () => {
  const viewer = document.querySelector("#viewer");
  if (viewer) makeViewer(viewer);
});
