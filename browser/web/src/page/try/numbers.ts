// The tab with a field for each number of a tabular input, with the range of the bundle's samples.

import { arrayOf, LIMITS, size, type Tensor } from "../../npy";
import type { TensorSpec } from "../bundle";
import type { Tensors } from "../engines/tensors";
import { element } from "../view/dom";
import { value } from "../view/format";
import type { Control, Give, InputTab } from "./control";
import { sampleOf, type Task } from "./task";

const MOST = 64; // fields: more are no form for a person
const STEPS = 100; // of a slider

export const NUMBERS: InputTab = {
  id: "numbers",
  title: "Numbers",
  hint: "Give each field a number.",
  available: ({ inputs }) => (inputs.every(isTabular) && total(inputs) <= MOST ? undefined : null),
  build: (into, task, give) => new NumbersControl(into, task, give),
};

const NUMERIC = ["float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"];

/** A row of numbers without a structure that another control would know. */
const isTabular = ({ kind, shape, dtype }: TensorSpec): boolean =>
  (kind === "tabular" || kind === "other") &&
  NUMERIC.includes(dtype) &&
  shape.length <= 2 &&
  shape.slice(1).every((n) => n !== null);

const lengthOf = ({ shape }: TensorSpec): number => size(shape.slice(1) as number[]);

const total = (inputs: TensorSpec[]): number => inputs.reduce((sum, spec) => sum + lengthOf(spec), 0);

interface Field {
  readonly number: HTMLInputElement;
  readonly slider: HTMLInputElement;
}

/** With the fewest digits, six at least, that give the same float32: 0.1 for 0.10000000149. */
export function shortest(number: number): number {
  for (let digits = 6; digits < 10; digits++) {
    const rounded = Number(number.toPrecision(digits));
    if (Math.fround(rounded) === number) return rounded;
  }
  return number; // of more than 32 bits
}

class NumbersControl implements Control {
  private readonly fields: Map<string, Field[]>;

  constructor(
    into: HTMLElement,
    private readonly task: Task,
    private readonly give: Give,
  ) {
    this.fields = new Map(task.inputs.map((spec) => [spec.name, this.fieldsOf(spec)]));
    const groups = task.inputs.map((spec) => {
      const rows = this.fields.get(spec.name)!.map((field, i) => this.row(spec, i, field));
      return element("fieldset", {}, element("legend", { hidden: task.inputs.length === 1 }, spec.name), ...rows);
    });
    into.append(element("div", { className: "numbers" }, ...groups));
  }

  show(): void {
    const fields = [...this.fields.values()].flat();
    const complete = fields.every(({ number }) => number.value !== "" && number.validity.valid);
    const tensors = (): Tensors => Object.fromEntries(this.task.inputs.map((spec) => [spec.name, this.tensor(spec)]));
    this.give(complete ? { inputs: tensors() } : undefined);
  }

  hide(): void {}

  private tensor({ name, shape, dtype }: TensorSpec): Tensor {
    const values = this.fields.get(name)!.map(({ number }) => Number(number.value));
    const whole = shape.slice(1) as number[];
    return { shape: [1, ...whole], dtype: dtype as Tensor["dtype"], data: arrayOf(dtype, values) };
  }

  private fieldsOf(spec: TensorSpec): Field[] {
    const whole = !spec.dtype.startsWith("float");
    return Array.from({ length: lengthOf(spec) }, (_, i) => {
      const { low, high, first } = this.spanOf(spec, i);
      const step = whole ? 1 : (high - low) / STEPS;
      const number = element("input", { type: "number", step: whole ? "1" : "any", value: String(first) });
      const limits = LIMITS[spec.dtype];
      if (limits) [number.min, number.max] = [String(limits[0]), String(limits[1])];
      const slider = element("input", {
        type: "range",
        min: String(low),
        max: String(high),
        step: String(step || "any"),
      });
      slider.value = number.value;
      number.addEventListener("input", () => {
        slider.value = number.value;
        this.show();
      });
      slider.addEventListener("input", () => {
        number.value = whole ? slider.value : String(Number(Number(slider.value).toPrecision(6)));
        this.show();
      });
      return { number, slider };
    });
  }

  /** Smallest, largest and first value of the samples; else the manifest's range of the whole input. */
  private spanOf({ name, range, shape }: TensorSpec, i: number): { low: number; high: number; first: number } {
    const { reference } = this.task;
    const examples = reference?.inputs[name];
    if (!examples || !reference.count) {
      const [low, high] = range ?? [0, 1];
      return { low, high, first: low };
    }
    const length = size(shape.slice(1) as number[]);
    const column = Array.from({ length: reference.count }, (_, row) => Number(examples.data[row * length + i]));
    const first = Number(sampleOf(reference.inputs, 0)[name]!.data[i]);
    return { low: Math.min(...column), high: Math.max(...column), first: shortest(first) };
  }

  private row(spec: TensorSpec, i: number, { number, slider }: Field): HTMLElement {
    const length = lengthOf(spec);
    const name = spec.labels[i] ?? (length === 1 ? spec.name : `${spec.name} [${i}]`);
    const range = `${value(Number(slider.min))} to ${value(Number(slider.max))}`;
    slider.ariaLabel = `${name}, slider`;
    number.ariaLabel = `${name}, ${range} in the samples`;
    const title = element("span", { className: "number-name", title: name }, name);
    return element("div", { className: "number-row" }, title, slider, number, element("small", {}, range));
  }
}
