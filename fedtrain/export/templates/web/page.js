// The page of a release: a field for each column or a square to draw on, and what the
// model makes of it. Everything happens here; nothing is sent anywhere.
"use strict";

const FACTS = JSON.parse(document.getElementById("facts").textContent);
const FORM = document.getElementById("form");
const RESULT = document.getElementById("result");
const MOST_BARS = 12;
const readers = {};
let latest = 0;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Builds the field of `column`; its reader gives a text, or null where it is missing. */
function field(column) {
  const id = `field-${column.name}`;
  const build = column.drawing ? drawing : column.kind === "category" ? choice : typed;
  const { control, read } = build(column, id);
  const problem = element("p", { className: "problem", id: `${id}-problem` });
  const label = element("label", { htmlFor: id }, column.name);
  label.hidden = Boolean(column.drawing) && FACTS.columns.length === 1;
  const hint = element("p", { className: "hint" }, hintOf(column));
  readers[column.name] = { read, problem, control, hint };
  return element("div", { className: `field ${column.kind}` }, label, control, hint, problem);
}

function typed(column, id) {
  const value = column.example ?? "";
  const describedBy = { "aria-describedby": `${id}-problem` };
  const control =
    column.kind === "array"
      ? element("textarea", { id, value, rows: 4, spellcheck: false, ...describedBy })
      : element("input", { id, value, inputMode: "decimal", autocomplete: "off", ...describedBy });
  control.addEventListener("input", update);
  return { control, read: () => (control.value.trim() === "" ? null : control.value) };
}

function choice(column, id) {
  const values = column.categories.values;
  const options = values.map((value, i) => element("option", { value: i }, value || "(empty)"));
  if (mayBeMissing(column)) options.push(element("option", { value: -1 }, "(missing)"));
  const control = element("select", { id }, ...options);
  control.addEventListener("change", update);
  return { control, read: () => values[Number(control.value)] ?? null };
}

function drawing(column, id) {
  const canvas = element("canvas", { id, className: "square", "aria-label": "Draw here" });
  const seen = element("canvas", { className: "seen", role: "img", "aria-label": "As the model sees it" });
  const clear = element("button", { type: "button" }, "Clear");
  const side = element(
    "div",
    { className: "beside" },
    element("p", { className: "hint" }, "As the model sees it"),
    seen,
    clear
  );
  const control = element("div", { className: "drawing" }, canvas, side);
  const { range } = column;
  const valueOf = (ink) => (range ? range.minimum + ink * (range.maximum - range.minimum) : ink);
  let square = null;
  // Colours are known once the canvas is in the page.
  requestAnimationFrame(() => {
    square = drawingSquare(canvas, { pen: column.drawing.pen, changed: update });
    clear.addEventListener("click", square.clear);
    update();
  });
  const read = () => {
    const image = square && imageOf(square.ink(), column.drawing);
    if (square) showImage(seen, image, column.drawing);
    return image && Array.from(image, valueOf).join(" ");
  };
  return { control, read };
}

function hintOf(column) {
  if (column.drawing) return "Draw with the mouse or a finger.";
  if (column.kind === "category") return "";
  const kind = column.whole ? "whole numbers" : "numbers";
  const many = column.kind === "array" ? `${sizeOf(column.shape)} ${kind}` : "";
  const { range } = column;
  const limits = range ? `${range.minimum} to ${range.maximum}` : "";
  const whole = column.kind === "number" && column.whole ? "a whole number" : "";
  const missing = mayBeMissing(column) ? "may be empty" : "";
  return [many, limits, whole, missing].filter(Boolean).join(", ");
}

/** Reads every field, shows what is wrong, and asks the model where nothing is. */
async function update() {
  const number = ++latest;
  const row = {};
  let fits = true;
  for (const column of FACTS.columns) {
    const { read, problem, control } = readers[column.name];
    row[column.name] = read();
    const reason = problemOf(column, row[column.name]);
    const isWaiting = Boolean(column.drawing) && row[column.name] === null;
    problem.textContent = reason && !isWaiting ? `Refused: ${reason}.` : "";
    control.toggleAttribute("aria-invalid", Boolean(reason) && !isWaiting);
    fits = fits && reason === null;
  }
  RESULT.classList.toggle("waiting", !fits);
  if (!fits || !FACTS.model) return show(null);
  const start = performance.now();
  const values = await answers(encodedRow(FACTS.columns, row));
  if (number === latest) show(values, performance.now() - start);
}

/** The model's answer for one encoded row, as plain numbers. */
async function answers(inputs) {
  const tensors = {};
  for (const [name, { values, shape }] of Object.entries(inputs)) {
    const dtype = values instanceof Int32Array ? "int32" : "float32";
    tensors[name] = tf.tensor(values, shape, dtype);
  }
  const output = await outputOf(FACTS.model, tensors, FACTS.output);
  const values = Array.from(await output.data());
  tf.dispose([output, tensors]);
  return values;
}

function show(values, milliseconds) {
  RESULT.dataset.values = JSON.stringify(values);
  RESULT.replaceChildren();
  if (values === null) {
    const wanted = FACTS.columns.some((c) => c.drawing) ? "Draw something." : "Correct the fields that are marked.";
    RESULT.append(element("p", { className: "hint" }, wanted));
    return;
  }
  const named = FACTS.output === "probabilities" ? shares(values) : nextShares(values);
  RESULT.append(...(named ? bars(named) : plain(values)));
  RESULT.append(element("p", { className: "hint" }, `${milliseconds.toFixed(1)} ms in this browser`));
}

/** The label and share of each class; one probability is that of the second label. */
function shares(values) {
  const all = values.length === 1 ? [1 - values[0], values[0]] : values;
  return all.map((share, i) => ({ name: FACTS.labels[i] ?? String(i), share }));
}

/** The shares of what comes after the last place of a sequence; null for a number. */
function nextShares(values) {
  if (!FACTS.labels.length) return null;
  const last = values.slice(-FACTS.labels.length);
  const exponentials = last.map((value) => Math.exp(value - Math.max(...last)));
  const total = exponentials.reduce((a, b) => a + b, 0);
  return shares(exponentials.map((value) => value / total));
}

function bars(named) {
  const best = named.reduce((a, b) => (b.share > a.share ? b : a));
  const sorted = [...named].sort((a, b) => b.share - a.share).slice(0, MOST_BARS);
  const shown = named.length > MOST_BARS ? sorted : named;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const lines = shown.map(({ name, share }) => {
    const bar = element("span", { className: "bar" });
    bar.style.setProperty("--share", share);
    return element(
      "li",
      { className: name === best.name ? "best" : "" },
      element("span", { className: "name" }, name),
      element("span", { className: "track" }, bar),
      element("span", { className: "share" }, percent(share))
    );
  });
  const title = element("p", { className: "answer" }, element("strong", {}, best.name), ` ${percent(best.share)}`);
  return [title, element("ol", { className: "bars" }, ...lines)];
}

function plain(values) {
  const shown = values.slice(-MOST_BARS).map((value) => Number(value.toPrecision(6)));
  const title = FACTS.label ? `${FACTS.label}: ` : "";
  return [element("p", { className: "answer" }, title, element("strong", {}, shown.join(", ")))];
}

async function start() {
  FORM.replaceChildren(...FACTS.columns.map(field));
  FORM.addEventListener("submit", (event) => event.preventDefault());
  try {
    await startKernels("tfjs/");
    FACTS.model = await tf.loadGraphModel(FACTS.path);
  } catch (error) {
    RESULT.replaceChildren(element("p", { className: "problem" }, `The model cannot be loaded: ${error.message}`));
    return;
  }
  document.documentElement.dataset.ready = "yes";
  await update();
}

start();
