// A typed row becomes what the model takes, exactly as in training: the refusals of
// fedtrain.data.schema_check and the arithmetic of fedtrain.data.schema_encoding, in
// float64. A missing value is null.
"use strict";

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

const mayBeMissing = (column) => Boolean(column.missing && column.missing.allowed);
const sizeOf = (shape) => shape.reduce((a, b) => a * b, 1);
const numberOf = (text) => (NUMBER.test(text.trim()) ? Number(text) : NaN);
const numbersOf = (text) => text.split(/[\s,;]+/).filter(Boolean).map(numberOf);

/** Why `value`, a text or null, does not fit `column`; null where it does. */
function problemOf(column, value) {
  if (value === null) return mayBeMissing(column) ? null : "a value is missing";
  if (column.kind === "category") return categoryProblem(column, value);
  if (column.kind === "array") return arrayProblem(column, value);
  const number = numberOf(value);
  if (!Number.isFinite(number)) return "it is not a finite number";
  if (column.whole && number % 1 !== 0) return "it is not a whole number";
  return rangeProblem(column, [number]);
}

function categoryProblem({ categories }, value) {
  if (!categories || categories.values.includes(value)) return null;
  const listed = categories.values.slice(0, 10).map((known) => `'${known}'`).join(", ");
  const more = categories.values.length - 10;
  const rest = more > 0 ? ` and ${more} more` : "";
  return `it is not one of the ${categories.source} ${listed}${rest}`;
}

function arrayProblem(column, value) {
  const numbers = numbersOf(value);
  const size = sizeOf(column.shape);
  if (numbers.length !== size) return `it has ${numbers.length} numbers, not ${size}`;
  if (!numbers.every(Number.isFinite)) return "it holds what is no finite number";
  return rangeProblem(column, numbers);
}

function rangeProblem({ range }, numbers) {
  if (!range || numbers.every((n) => n >= range.minimum && n <= range.maximum)) {
    return null;
  }
  return `it is outside the ${range.source} range ${range.minimum} to ${range.maximum}`;
}

/** Inputs of the model by name, {values, shape}, for one row that has no problem. */
function encodedRow(columns, row) {
  const inputs = {};
  const scalars = [];
  for (const column of columns) {
    const value = row[column.name];
    if (column.kind === "array") inputs[column.name] = encodedArray(column, value);
    else scalars.push(...encodedScalar(column, value));
  }
  if (scalars.length) {
    inputs.columns = { values: Float32Array.from(scalars), shape: [1, scalars.length] };
  }
  const [only, ...others] = Object.values(inputs);
  return others.length ? inputs : { features: only };
}

function encodedScalar(column, value) {
  const isMissing = value === null;
  const encoded =
    column.kind === "category"
      ? column.categories.values.map((known) => Number(known === value))
      : [isMissing ? 0 : scaled(column, Number(value))];
  return mayBeMissing(column) ? [...encoded, Number(isMissing)] : encoded;
}

function encodedArray(column, value) {
  const shape = [1, ...column.shape];
  const numbers = numbersOf(value);
  if (column.encoding === "keep" && column.whole) {
    return { values: Int32Array.from(numbers), shape };
  }
  const encoded = numbers.map((number) => scaled(column, number));
  return { values: Float32Array.from(encoded), shape };
}

function scaled({ encoding, moments, range }, number) {
  if (encoding === "standardise") return (number - moments.mean) / moments.stddev;
  if (encoding !== "min_max") return number;
  return (number - range.minimum) / (range.maximum - range.minimum || 1);
}
