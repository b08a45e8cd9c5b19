// The tab with the drawing pad.

import { element } from "../view/dom";
import type { InputTab } from "./control";
import { isSketchable, tensorOf } from "./image";
import { Pad } from "./pad";

export const DRAW: InputTab = {
  id: "draw",
  title: "Draw",
  hint: "Draw with a mouse, a pen or a finger.",
  available: ({ image }) => (image && isSketchable(image.layout) ? undefined : null),
  build(into, task, give) {
    const { spec, layout, placement } = task.image!;
    const canvas = element("canvas", { id: "pad" });
    canvas.setAttribute("role", "img");
    canvas.ariaLabel = "Drawing pad";
    const clear = element("button", { id: "clear", type: "button", className: "quiet" }, "Clear");
    into.append(element("div", { className: "pad" }, canvas, clear));
    const answer = (): void =>
      give(
        pad.empty ? undefined : { inputs: { [spec.name]: tensorOf(pad.image(layout, placement), layout, spec.dtype) } },
      );
    let frame = 0;
    const pad = new Pad(canvas, () => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(answer);
    });
    clear.addEventListener("click", () => pad.clear());
    return { show: answer, hide: () => cancelAnimationFrame(frame) };
  },
};
