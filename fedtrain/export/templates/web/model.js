// Runs a TF.js graph model: the same lines in Node, where a release is measured, and in
// its page.
"use strict";

/** Starts TF.js on its WebAssembly kernels with one thread. */
async function startKernels(folder) {
  tf.enableProdMode();
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  tf.wasm.setWasmPaths(folder);
  if (!(await tf.setBackend("wasm"))) {
    throw new Error("WebAssembly cannot be started here.");
  }
}

/** One output of `model` for `inputs`, tensors by name; the caller disposes of it. */
async function outputOf(model, inputs, name) {
  try {
    return model.execute(inputs, name);
  } catch (error) {
    // Graphs with loops can only be run asynchronously, and TF.js says so by name.
    if (!error.message.includes("executeAsync")) throw error;
    return model.executeAsync(inputs, name);
  }
}
