// Ink on a square becomes an image as the model knows them: cut to what is drawn, sized
// to the box that the training images fill, centred, and averaged over each pixel.
"use strict";

const SIDE = 320;
const SAMPLES = 6;

/** A square to draw on; `changed` is called after every stroke's move. */
function drawingSquare(canvas, { pen, changed }) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  canvas.width = canvas.height = SIDE;
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: pen * SIDE });
  context.strokeStyle = getComputedStyle(canvas).color;
  let last = null;
  const place = (event) => {
    const { left, top, width } = canvas.getBoundingClientRect();
    const scale = SIDE / width;
    return [(event.clientX - left) * scale, (event.clientY - top) * scale];
  };
  const lineTo = (point) => {
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(...point);
    context.stroke();
    last = point;
    changed();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    lineTo(last);
  });
  canvas.addEventListener("pointermove", (event) => last && lineTo(place(event)));
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => (last = null));
  }
  return {
    ink: () => inkOf(context.getImageData(0, 0, SIDE, SIDE).data),
    clear: () => {
      context.clearRect(0, 0, SIDE, SIDE);
      changed();
    },
  };
}

/** How much ink each pixel of the square holds, from 0 to 1. */
function inkOf(pixels) {
  return Float32Array.from({ length: SIDE * SIDE }, (_, i) => pixels[4 * i + 3] / 255);
}

/** The image, `height` x `width` from 0 to 1; null for an empty square. */
function imageOf(ink, { height, width, box, by_mass: byMass }) {
  const found = extentOf(ink);
  if (found === null) return null;
  const scale = Math.min(box[0] / found.height, box[1] / found.width);
  const [centreX, centreY] = byMass ? found.mass : found.middle;
  const image = new Float32Array(height * width);
  for (let i = 0; i < image.length; i++) {
    let sum = 0;
    for (let s = 0; s < SAMPLES * SAMPLES; s++) {
      const right = (i % width) + ((s % SAMPLES) + 0.5) / SAMPLES - width / 2;
      const down =
        Math.floor(i / width) + (Math.floor(s / SAMPLES) + 0.5) / SAMPLES - height / 2;
      const x = Math.floor(centreX + right / scale);
      const y = Math.floor(centreY + down / scale);
      if (x >= 0 && y >= 0 && x < SIDE && y < SIDE) sum += ink[y * SIDE + x];
    }
    image[i] = sum / (SAMPLES * SAMPLES);
  }
  return image;
}

function extentOf(ink) {
  let [left, right, top, bottom] = [SIDE, -1, SIDE, -1];
  let [total, sumX, sumY] = [0, 0, 0];
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const amount = ink[y * SIDE + x];
      if (amount < 0.2) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      total += amount;
      sumX += amount * (x + 0.5);
      sumY += amount * (y + 0.5);
    }
  }
  if (right < 0) return null;
  return {
    width: right + 1 - left,
    height: bottom + 1 - top,
    middle: [(left + right + 1) / 2, (top + bottom + 1) / 2],
    mass: [sumX / total, sumY / total],
  };
}

/** Shows an image as it is, pixel by pixel, in the colour of the text. */
function showImage(canvas, image, { height, width }) {
  Object.assign(canvas, { height, width });
  const context = canvas.getContext("2d");
  const color = getComputedStyle(canvas).color.match(/\d+/g).map(Number);
  const shown = context.createImageData(width, height);
  (image || []).forEach((amount, i) => {
    shown.data.set([...color.slice(0, 3), 255 * amount], 4 * i);
  });
  context.putImageData(shown, 0, 0);
}
