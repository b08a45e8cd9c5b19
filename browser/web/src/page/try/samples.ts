// The tab with the bundle's reference inputs: the source model's answer is known for each.

import { element } from "../view/dom";
import { value } from "../view/format";
import type { InputTab } from "./control";
import { paint, unit } from "./image";
import { sampleOf, type Task } from "./task";

export const SAMPLES: InputTab = {
  id: "samples",
  title: "Samples",
  hint: "Choose a sample.",
  available: ({ reference }) => (reference?.count ? undefined : null),
  build(into, task, give) {
    const reference = task.reference!;
    const buttons = Array.from({ length: reference.count }, (_, i) => {
      const button = element("button", { type: "button", ariaPressed: "false" }, face(task, i));
      if (task.image) button.ariaLabel = `Sample ${i + 1}`;
      button.addEventListener("click", () => choose(i));
      return button;
    });
    const choose = (i: number): void => {
      for (const [at, button] of buttons.entries()) button.ariaPressed = String(at === i);
      chosen = i;
      give({ inputs: sampleOf(reference.inputs, i), source: sampleOf(reference.outputs, i) });
    };
    let chosen = 0;
    const list = element("ul", { className: task.image ? "samples pictures" : "samples" });
    list.append(...buttons.map((button) => element("li", {}, button)));
    into.append(list);
    return { show: () => choose(chosen), hide: () => {} };
  },
};

/** Its picture, or its number and first values. */
function face({ image, inputs, reference }: Task, i: number): Node {
  if (image) {
    const picture = element("canvas", { ariaHidden: "true" });
    paint(picture, unit(reference!.inputs[image.spec.name]!, i, image.layout), image.layout);
    return picture;
  }
  const first = sampleOf(reference!.inputs, i)[inputs[0]!.name]!;
  const values = Array.from(first.data.slice(0, 4) as ArrayLike<number | bigint>, (one) => value(Number(one)));
  const more = first.data.length > values.length ? ", …" : "";
  return element("span", {}, element("b", {}, `Sample ${i + 1}`), ` ${values.join(", ")}${more}`);
}
