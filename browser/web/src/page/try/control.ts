// What every way to give an input has in common.

import type { Tensors } from "../engines/tensors";
import type { Task } from "./task";

export interface Given {
  /** One sample: the first axis of each has length 1. */
  inputs: Tensors;
  /** What the source model answered to it, where the bundle says so. */
  source?: Tensors;
}

/** Undefined: there is nothing to answer yet. */
export type Give = (given: Given | undefined) => void;

export interface Control {
  /** Its tab was chosen: give an input if there is one. */
  show(): void;
  /** Another tab was chosen: a camera ends. */
  hide(): void;
}

/** A tab of the first screen. */
export interface InputTab {
  readonly id: string;
  readonly title: string;
  /** What to do, while there is no answer. */
  readonly hint: string;
  /** undefined: shown; a text: greyed with this reason; null: not for this model. */
  available(task: Task): string | undefined | null;
  build(into: HTMLElement, task: Task, give: Give): Control;
}
