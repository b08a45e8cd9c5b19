// The labelled images of this browser: what is trained on, and what is held out to measure on.

import type { StoredSample } from "./storage";
import type { Labelled } from "./trainer";

const HELD_EVERY = 5; // of the images of a class, the last of each five

export class Images extends EventTarget {
  /** `all` is changed in place by `add`, `remove` and `replace`. */
  constructor(readonly all: StoredSample[]) {
    super();
  }

  /** Whether the next image of a class is held out. */
  holds(label: number): boolean {
    return this.all.filter((one) => one.label === label).length % HELD_EVERY === HELD_EVERY - 1;
  }

  add(sample: StoredSample): void {
    if (this.all.some((one) => same(one, sample))) return; // `replace` was first
    this.all.push(sample);
    this.dispatchEvent(new Event("change"));
  }

  remove(samples: readonly StoredSample[]): void {
    this.take(this.all.filter((one) => !samples.some((other) => same(one, other))));
  }

  /** Take those that are stored now; another tab may have added and removed some. */
  replace(stored: readonly StoredSample[]): void {
    if (stored.length !== this.all.length || !stored.every((one, i) => same(one, this.all[i]!))) this.take(stored);
  }

  private take(all: readonly StoredSample[]): void {
    this.all.splice(0, this.all.length, ...all);
    this.dispatchEvent(new Event("change"));
  }

  get train(): Labelled {
    return labelled(this.all.filter(({ held }) => !held));
  }

  get held(): Labelled {
    return labelled(this.all.filter(({ held }) => held));
  }

  get whole(): Labelled {
    return labelled(this.all);
  }
}

/** Whose images a model may use: a class is a number, and its name says of what. */
export const imagesKey = (
  model: string,
  image: { range: unknown; shape: readonly unknown[] },
  labels: readonly string[],
) => JSON.stringify([model, image.shape, image.range, labels]);

const same = (a: StoredSample, b: StoredSample): boolean => a === b || (a.id !== undefined && a.id === b.id);

const labelled = (samples: readonly StoredSample[]): Labelled => ({
  inputs: samples.map(({ data }) => data),
  labels: samples.map(({ label }) => label),
});
