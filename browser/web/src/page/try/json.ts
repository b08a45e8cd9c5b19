// The tab that takes the inputs as JSON: for tokens and whatever has no control of its own.

import { arrayOf, LIMITS, size, type Tensor } from "../../npy";
import type { TensorSpec } from "../bundle";
import { element, wordsOf } from "../view/dom";
import { AUDIO } from "./audio";
import type { Given, InputTab } from "./control";
import { NUMBERS } from "./numbers";
import { sampleOf, type Task } from "./task";

const MOST = 20_000; // characters of the first sample that are written into the field

export const JSON_TEXT: InputTab = {
  id: "json",
  title: "JSON",
  hint: "Paste one sample as JSON.",
  available: (task) =>
    task.image || AUDIO.available(task) === undefined || NUMBERS.available(task) !== null ? null : undefined,
  build(into, task, give) {
    const field = element("textarea", { rows: 9, spellcheck: false, ariaLabel: "One sample as JSON" });
    field.value = exampleOf(task);
    const shapes = task.inputs.map(({ name, dtype, shape }) => `${name}: ${dtype} [${shape.slice(1).map(dim)}]`);
    const words = element("p", { className: "bad", role: "status" });
    const read = (): void => {
      words.textContent = "";
      let given: Given | undefined;
      try {
        if (field.value.trim()) given = { inputs: parseInputs(field.value, task.inputs) };
      } catch (error) {
        words.textContent = wordsOf(error);
      }
      give(given);
    };
    field.addEventListener("input", read);
    const hint = element("p", { className: "hint" }, `One sample: an array for each input. ${shapes.join(", ")}`);
    into.append(hint, field, words);
    return { show: read, hide: () => {} };
  },
};

const dim = (n: number | null): string => (n === null ? "any" : String(n));

/** The first reference input, if it is short enough to read. */
function exampleOf({ reference }: Task): string {
  if (!reference?.count) return "";
  const sample = Object.entries(sampleOf(reference.inputs, 0)).map(([name, { shape, data }]) => [
    name,
    nested(Array.from(data as ArrayLike<number | bigint>, Number), shape.slice(1)),
  ]);
  const text = JSON.stringify(Object.fromEntries(sample));
  return text.length > MOST ? "" : text;
}

function nested(values: number[], [n, ...rest]: number[]): unknown {
  if (n === undefined) return values[0];
  const length = size(rest);
  return Array.from({ length: n }, (_, i) => nested(values.slice(i * length, (i + 1) * length), rest));
}

/** `{"NAME": array, ...}`, or the array alone where there is one input: one sample, without a batch axis. */
export function parseInputs(text: string, specs: TensorSpec[]): Record<string, Tensor> {
  const parsed: unknown = JSON.parse(text);
  const plain = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
  const given: Record<string, unknown> = plain
    ? (parsed as Record<string, unknown>)
    : specs.length === 1
      ? { [specs[0]!.name]: parsed }
      : {};
  return Object.fromEntries(
    specs.map((spec) => {
      if (!Object.hasOwn(given, spec.name))
        throw new Error(`the JSON has no ${spec.name}. Expected an object with ${specs.map(({ name }) => name)}`);
      return [spec.name, tensorFrom(given[spec.name], spec)];
    }),
  );
}

function tensorFrom(nestedValues: unknown, { name, shape, dtype }: TensorSpec): Tensor {
  const found = shapeOf(nestedValues);
  const expected = shape.slice(1);
  if (found.length !== expected.length || expected.some((n, axis) => n !== null && n !== found[axis]))
    throw new Error(`${name} has the shape [${found}]. Expected [${expected.map(dim)}]`);
  const values = [nestedValues].flat(Infinity);
  if (values.length !== size(found) || !values.every((one) => typeof one === "number" || typeof one === "boolean"))
    throw new Error(`${name} is no array of numbers with rows of one length`);
  if (!dtype.startsWith("float") && !values.every((one) => Number.isInteger(Number(one))))
    throw new Error(`${name} takes whole numbers (${dtype})`);
  const [low, high] = LIMITS[dtype] ?? [-Infinity, Infinity];
  const outside = values.find((one) => Number(one) < low || Number(one) > high);
  if (outside !== undefined) throw new Error(`${name} has the value ${outside}. Expected ${low} to ${high} (${dtype})`);
  return { shape: [1, ...found], dtype: dtype as Tensor["dtype"], data: arrayOf(dtype, values.map(Number)) };
}

const shapeOf = (values: unknown): number[] => (Array.isArray(values) ? [values.length, ...shapeOf(values[0])] : []);
