// Draws 8-bit maps over pictures. Pictures stay <img> elements and only heat is painted, because a
// page opened from disk may not read the pixels of a picture.
"use strict";
(() => {
  const SMOOTH = 8; // canvas pixels a cell
  const data = JSON.parse(document.getElementById("data").textContent);
  const [rows, columns] = data.grid;

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const ramp = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
  const colours = Object.fromEntries(
    Object.entries(window.legradColours).map(([name, hex]) => [name, ramp(hex)]));

  const images = data.images.map((maps) => Object.fromEntries(
    Object.entries(maps).map(([kind, [text, peak, query]]) =>
      [kind, { cells: bytes(text), peak, query }])));

  // One scale per query: the strongest heat on the page.
  const strongest = {};
  const measure = (map) => { strongest[map.query] = Math.max(strongest[map.query] || 0, map.peak); };
  images.flatMap((maps) => Object.values(maps)).forEach(measure);

  // Bilinear between the middles of cells; calls back with every pixel's value.
  function eachPixel(cells, width, height, paint) {
    for (let y = 0; y < height; y += 1) {
      const v = Math.min(rows - 1, Math.max(0, (y + 0.5) * rows / height - 0.5));
      const top = Math.floor(v), bottom = Math.min(rows - 1, top + 1), down = v - top;
      for (let x = 0; x < width; x += 1) {
        const u = Math.min(columns - 1, Math.max(0, (x + 0.5) * columns / width - 0.5));
        const left = Math.floor(u), right = Math.min(columns - 1, left + 1), across = u - left;
        const upper = cells[top * columns + left] * (1 - across)
          + cells[top * columns + right] * across;
        const lower = cells[bottom * columns + left] * (1 - across)
          + cells[bottom * columns + right] * across;
        paint(y * width + x, upper * (1 - down) + lower * down);
      }
    }
  }

  function begin(canvas, smooth) {
    canvas.width = columns * smooth;
    canvas.height = rows * smooth;
    const context = canvas.getContext("2d");
    return [context, context.createImageData(canvas.width, canvas.height)];
  }

  function colour(pixels, place, table, strength, alpha) {
    const step = Math.round(strength * 255) * 3;
    pixels.data.set([table[step], table[step + 1], table[step + 2], alpha * 255], place * 4);
  }

  function drawHeat(canvas, kind, opacity, threshold) {
    const map = images[Number(canvas.dataset.image)][kind];
    canvas.parentElement.classList.toggle("heated", Boolean(map) && opacity > 0);
    const [context, pixels] = begin(canvas, SMOOTH);
    if (map && strongest[map.query] > 0) {
      const scale = map.peak / strongest[map.query] / 255;
      eachPixel(map.cells, canvas.width, canvas.height, (place, value) => {
        const strength = value * scale;
        const alpha = strength < threshold ? 0 : opacity * Math.min(1, 1.25 * strength);
        colour(pixels, place, colours.heat, strength, alpha);
      });
    }
    context.putImageData(pixels, 0, 0);
  }

  function drawMean(canvas) {
    const [text, peak] = data.means[Number(canvas.dataset.mean)].mean;
    const [context, pixels] = begin(canvas, SMOOTH);
    const scale = peak > 0 ? 1 / 255 : 0;
    eachPixel(bytes(text), canvas.width, canvas.height, (place, value) => {
      colour(pixels, place, colours.heat, value * scale, 1);
    });
    context.putImageData(pixels, 0, 0);
  }

  // Cells are drawn without interpolation, because each was tested.
  function drawDifference(canvas) {
    const one = data.means[Number(canvas.dataset.difference)];
    const cells = bytes(one.difference[0]), marks = bytes(one.marks);
    const [context, pixels] = begin(canvas, 1);
    cells.forEach((value, place) => {
      const table = marks[place] & 1 ? colours.less : colours.more;
      const sure = marks[place] & 2 ? 1 : 0.25;
      colour(pixels, place, table, value / 255, sure * Math.min(1, 0.15 + value / 200));
    });
    context.putImageData(pixels, 0, 0);
  }

  function drawRamp(canvas) {
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(256, 1);
    for (let step = 0; step < 256; step += 1) {
      colour(pixels, step, colours.heat, step / 255, 1);
    }
    context.putImageData(pixels, 0, 0);
  }

  const form = document.querySelector("form.controls");
  const pictures = [...document.querySelectorAll("canvas[data-image]")];

  function draw() {
    const values = form ? new FormData(form) : new Map();
    const opacity = Number(values.get("opacity") ?? 80) / 100;
    const threshold = Number(values.get("threshold") ?? 0) / 100;
    if (form) {
      form.elements.cut.value = `${Math.round(threshold * 100)} %`;
    }
    const chosen = values.get("query");
    for (const canvas of pictures) {
      const own = images[Number(canvas.dataset.image)];
      drawHeat(canvas, chosen ?? Object.keys(own)[0] ?? "cue", opacity, threshold);
    }
  }

  let waiting = false;
  function soon() {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(); });
    }
  }

  // A map that comes after the page, of the image with this number.
  window.legradHeat = (number, kind, [text, peak, query]) => {
    images[number][kind] = { cells: bytes(text), peak, query };
    measure(images[number][kind]);
    soon();
  };

  if (form) {
    form.addEventListener("input", (event) => {
      if (event.target.name === "size") {
        document.documentElement.style.setProperty("--picture", `${event.target.value}px`);
      }
      soon();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  document.querySelectorAll("canvas.ramp").forEach(drawRamp);
  document.querySelectorAll("canvas[data-mean]").forEach(drawMean);
  document.querySelectorAll("canvas[data-difference]").forEach(drawDifference);
  draw();
})();
