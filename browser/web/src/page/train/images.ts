// The labelled images of this browser: what is trained on, and what is held out to measure on.

import type { StoredSample } from "./storage";
import type { Labelled } from "./trainer";

const HELD_EVERY = 5; // of the images of a class, the last of each five

export class Images extends EventTarget {
  /** `all` is changed in place by `add` and `remove`. */
  constructor(readonly all: StoredSample[]) {
    super();
  }

  /** Whether the next image of a class is held out. */
  holds(label: number): boolean {
    return this.all.filter((one) => one.label === label).length % HELD_EVERY === HELD_EVERY - 1;
  }

  add(sample: StoredSample): void {
    this.all.push(sample);
    this.dispatchEvent(new Event("change"));
  }

  remove(samples: readonly StoredSample[]): void {
    this.all.splice(0, this.all.length, ...this.all.filter((one) => !samples.includes(one)));
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

const labelled = (samples: readonly StoredSample[]): Labelled => ({
  inputs: samples.map(({ data }) => data),
  labels: samples.map(({ label }) => label),
});
