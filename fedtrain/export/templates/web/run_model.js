// node run_model.js FOLDER: runs the model that FOLDER/spec.json names, and writes its
// outputs, the seconds of every timed call and the memory used into FOLDER.
"use strict";

const fs = require("fs");
const path = require("path");
const vm = require("vm");

const WARMUPS = 20;
const ARRAYS = { float32: Float32Array, int32: Int32Array };

async function main(folder) {
  const spec = JSON.parse(fs.readFileSync(path.join(folder, "spec.json"), "utf8"));
  // As a browser loads them: without modules, into one global scope.
  Object.assign(globalThis, { require, __dirname, fs, path });
  for (const script of spec.scripts) {
    vm.runInThisContext(fs.readFileSync(script, "utf8"), { filename: script });
  }
  await startKernels(spec.kernels);
  const model = await tf.loadGraphModel(tf.io.fromMemory(artifacts(spec.model)));
  const inputs = Object.fromEntries(
    Object.entries(spec.inputs).map(([name, input]) => [name, read(input)])
  );
  const seconds = {};
  for (const [size, repeats] of Object.entries(spec.repeats)) {
    seconds[size] = await timed(model, some(inputs, Number(size)), spec.output, repeats);
  }
  const memory = peakMemoryBytes();
  const { values, shape, dtype } = await all(model, inputs, spec);
  fs.writeFileSync(path.join(folder, "outputs.bin"), values);
  const figures = { seconds, peak_memory_bytes: memory, shape, dtype };
  fs.writeFileSync(path.join(folder, "figures.json"), JSON.stringify(figures));
}

/** A model as TF.js keeps it in memory, from the files that a page would fetch. */
function artifacts(folder) {
  const model = JSON.parse(fs.readFileSync(path.join(folder, "model.json"), "utf8"));
  const groups = model.weightsManifest;
  const files = groups.flatMap((group) => group.paths);
  const content = Buffer.concat(files.map((f) => fs.readFileSync(path.join(folder, f))));
  return {
    ...model,
    weightSpecs: groups.flatMap((group) => group.weights),
    weightData: new Uint8Array(content).buffer,
  };
}

function read({ file, dtype, shape }) {
  const content = new Uint8Array(fs.readFileSync(file)).buffer;
  return { values: new ARRAYS[dtype](content), dtype, shape };
}

/** Tensors of rows `first` to `last`, counted on from the start where there are fewer. */
function rows(inputs, first, last) {
  const slices = {};
  for (const [name, { values, dtype, shape }] of Object.entries(inputs)) {
    const width = shape.slice(1).reduce((a, b) => a * b, 1);
    const taken = new ARRAYS[dtype]((last - first) * width);
    for (let row = first; row < last; row++) {
      const start = (row % shape[0]) * width;
      taken.set(values.subarray(start, start + width), (row - first) * width);
    }
    slices[name] = tf.tensor(taken, [last - first, ...shape.slice(1)], dtype);
  }
  return slices;
}

const some = (inputs, size) => rows(inputs, 0, size);

async function timed(model, tensors, output, repeats) {
  const seconds = [];
  for (let i = 0; i < WARMUPS + repeats; i++) {
    const start = performance.now();
    const found = await outputOf(model, tensors, output);
    found.dataSync();
    if (i >= WARMUPS) seconds.push((performance.now() - start) / 1000);
    found.dispose();
  }
  return seconds;
}

async function all(model, inputs, { output, chunk }) {
  const count = Object.values(inputs)[0].shape[0];
  const parts = [];
  let rest = [];
  let dtype = "float32";
  for (let first = 0; first < count; first += chunk) {
    const tensors = rows(inputs, first, Math.min(first + chunk, count));
    const found = await outputOf(model, tensors, output);
    parts.push(Buffer.from(found.dataSync().slice().buffer));
    [rest, dtype] = [found.shape.slice(1), found.dtype];
    tf.dispose([found, tensors]);
  }
  return { values: Buffer.concat(parts), shape: [count, ...rest], dtype };
}

/** The most that this process held; null where the system does not say. */
function peakMemoryBytes() {
  try {
    const status = fs.readFileSync("/proc/self/status", "utf8");
    return Number(/VmHWM:\s*(\d+)/.exec(status)[1]) * 1024;
  } catch {
    return null;
  }
}

main(process.argv[2]).catch((error) => {
  process.stderr.write(`${error}\n`);
  process.exitCode = 1;
});
