// Epochs and learning rate, start, pause and stop; the loss curve, and the accuracy before and after.

import { element } from "../view/dom";
import { Curve } from "./curve";
import { onClick, type Training } from "./panel";
import type { Measured } from "./trainer";

class Stopped extends Error {}

export function trainingForm(training: Training): HTMLElement {
  const { images, personal, session } = training;
  const epochs = element("input", { type: "number", min: "1", max: "1000", value: "10", id: "train-epochs" });
  const rate = element("input", {
    type: "number",
    min: "0.0001",
    max: "10",
    step: "any",
    value: "0.05",
    id: "train-rate",
  });
  const start = element("button", { type: "button", className: "main", id: "train-start" }, "Train");
  const pause = element("button", { type: "button", className: "quiet", disabled: true }, "Pause");
  const stop = element("button", { type: "button", className: "quiet", disabled: true }, "Stop");
  const bar = element("progress", { max: 1, value: 0, ariaLabel: "Training" });
  const result = element("p", { id: "train-result" });
  const curve = new Curve();

  let [paused, stopped] = [false, false];
  let go: (() => void) | undefined;
  const resume = (): void => {
    paused = false;
    pause.textContent = "Pause";
    go?.();
  };
  pause.addEventListener("click", () => {
    if (paused) return resume();
    paused = true;
    pause.textContent = "Continue";
    training.say("Paused.");
  });
  stop.addEventListener("click", () => {
    stopped = true;
    resume();
  });
  onClick(start, training, async () => {
    if (!images.train.labels.length) throw new Error("Label images first.");
    [paused, stopped] = [false, false];
    pause.disabled = stop.disabled = false;
    curve.clear();
    result.textContent = "";
    try {
      training.say("Loading the model.");
      await session.exclusively(() => run());
      if (session.current?.personal) await personal.use(); // its answer to the same input is another one now
    } finally {
      pause.disabled = stop.disabled = true;
      resume();
    }
  });

  const run = async (): Promise<void> => {
    const trainer = await personal.trainer();
    const [train, held] = [images.train, images.held];
    const measure = async () => (held.labels.length ? trainer.evaluate(held) : undefined);
    const [before, begun] = [await measure(), await trainer.getWeights()];
    const seed = [crypto.getRandomValues(new Uint32Array(1))[0]!];
    let done = 0;
    try {
      const made = await trainer.train(train, {
        epochs: Math.floor(epochs.valueAsNumber),
        lr: rate.valueAsNumber,
        seed,
        step: async ({ step, steps, loss }) => {
          done = step;
          bar.value = step / steps;
          curve.add(loss);
          training.say(`Step ${step} of ${steps}, loss ${loss.toPrecision(3)}.`);
          if (paused) await new Promise<void>((resolve) => (go = resolve));
          if (stopped) throw new Stopped();
        },
      });
      training.say(`${made.steps} steps on ${made.examples} images took ${made.seconds.toFixed(1)} s.`);
    } catch (error) {
      if (!(error instanceof Stopped)) {
        await trainer.setWeights(begun); // a loss without an end leaves none that are of use
        throw error;
      }
      training.say(`Stopped after ${done} steps.`);
    }
    await personal.keep();
    result.textContent = accuracies(before, await measure());
  };
  return element(
    "fieldset",
    { className: "part" },
    element("legend", {}, "Training"),
    element("label", {}, "Epochs ", epochs),
    element("label", {}, "Learning rate ", rate),
    element("div", { className: "row" }, start, pause, stop),
    bar,
    curve.canvas,
    result,
  );
}

function accuracies(before: Measured | undefined, after: Measured | undefined): string {
  if (!before || !after) return "No image is held out yet, so the accuracy is not measured. Label five of a class.";
  const percent = ({ accuracy }: Measured): string => `${(100 * accuracy).toFixed(1)}%`;
  return `Accuracy on ${after.examples} held-out images: ${percent(before)} before, ${percent(after)} after.`;
}
