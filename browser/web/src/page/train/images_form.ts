// Labelled images: add the input of the first screen under a class, see and remove them.

import { paint, unit } from "../try/image";
import { element } from "../view/dom";
import { onClick, type Training } from "./panel";
import type { StoredSample } from "./storage";

const SHOWN = 60; // pictures, the newest

export function imagesForm(training: Training): HTMLElement {
  const { session, labels, image, storage, images } = training;
  const chosen = element("select", { id: "train-class" });
  chosen.append(...labels.map((label, i) => element("option", { value: String(i) }, label)));
  const add = element("button", { type: "button", className: "quiet", id: "train-add" }, "Add the input above");
  const clear = element("button", { type: "button", className: "quiet" }, "Remove all images");
  const counts = element("p", { className: "hint", id: "train-counts" });
  const list = element("ul", { className: "samples pictures" });

  const preview = element("canvas", { id: "train-preview" });
  preview.role = "img";
  preview.ariaLabel = "The input that would be added";
  const showInput = (): void => {
    const input = session.answer?.inputs[image.spec.name];
    add.disabled = !input;
    preview.hidden = !input;
    if (input) paint(preview, unit(input, 0, image.layout), image.layout);
  };
  session.addEventListener("answer", showInput);
  showInput();
  onClick(add, training, async () => {
    const input = session.answer?.inputs[image.spec.name];
    if (!input) throw new Error("Give the first screen an image first.");
    const label = Number(chosen.value);
    const data = new Float32Array(Array.from(input.data as ArrayLike<number>));
    images.add(await storage.add("samples", { data, label, held: images.holds(label) }));
    training.say(`Added an image of the class ${labels[label]}.`);
  });
  onClick(clear, training, async () => {
    await storage.clear();
    images.remove([...images.all]);
    training.say("All images are removed.");
  });
  const show = (): void => {
    const [trained, held] = [images.train.labels.length, images.held.labels.length];
    counts.textContent = images.all.length
      ? `${trained} to train on, ${held} held out to measure on (the last of each five of a class).`
      : "No images yet.";
    list.replaceChildren(
      ...images.all
        .slice(-SHOWN)
        .toReversed()
        .map((one) => element("li", {}, picture(one))),
    );
  };
  const picture = (sample: StoredSample): HTMLElement => {
    const canvas = element("canvas", { ariaHidden: "true" });
    const tensor = { shape: [1, sample.data.length], dtype: "float32" as const, data: sample.data };
    paint(canvas, unit(tensor, 0, image.layout), image.layout);
    const label = labels[sample.label] ?? String(sample.label);
    const button = element("button", { type: "button" }, canvas, element("span", {}, label));
    button.ariaLabel = `Remove this image of the class ${label}${sample.held ? ", held out" : ""}`;
    button.title = button.ariaLabel;
    onClick(button, training, async () => {
      await storage.remove(sample);
      images.remove([sample]);
    });
    return button;
  };
  images.addEventListener("change", show);
  show();
  return element(
    "fieldset",
    { className: "part" },
    element("legend", {}, "Images"),
    element("label", {}, "Class ", chosen),
    element("div", { className: "row" }, preview, add, clear),
    counts,
    list,
  );
}
