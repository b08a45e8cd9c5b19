// The drawing pad, and the classes of the drawing. Only a variant that agrees with the source model classifies it.

import { type Bundle, inferenceSignature, referenceOf } from "./bundle";
import { classOutput, row, shares } from "./compare";
import type { Model } from "./engines/engine";
import { rows } from "./engines/tensors";
import { CENTERED, imageLayout, isSketchable, paint, placementOf, unit } from "./image";
import { Pad } from "./pad";
import { runsHere } from "./standing";
import * as view from "./view";

export interface Sketch {
  /** Classify drawings with this model from now on. */
  use(model: Model): void;
  /** Classify nothing until `use` is called. */
  pause(): void;
  /** Pause, and hide the pad. */
  stop(): void;
}

/** The pad, or undefined unless the model takes one small float32 image and gives classes. */
export function prepareSketch(bundle: Bundle): Sketch | undefined {
  const runnable = bundle.manifest.variants.filter(runsHere);
  const signature = runnable.map((variant) => inferenceSignature(bundle, variant)).find((name) => name !== undefined);
  if (signature === undefined) return undefined;
  const specs = bundle.manifest.signatures[signature]!;
  const input = specs.inputs[0];
  if (!input || specs.inputs.length > 1 || input.dtype !== "float32") return undefined;
  const reference = referenceOf(bundle, signature);
  const output = classOutput(specs.outputs);
  const layout = imageLayout(input, reference?.inputs[input.name]);
  if (!layout || !output || !isSketchable(layout)) return undefined;

  const images = Array.from({ length: reference?.count ?? 0 }, (_, i) =>
    unit(reference!.inputs[input.name]!, i, layout),
  );
  const placement = images.length ? placementOf(images, layout) : CENTERED;
  const seen = view.byId<HTMLCanvasElement>("seen");
  const classes = output.shape[1]!;
  let model: Model | undefined;
  let busy = false;
  let waiting = false;

  const classify = async (): Promise<void> => {
    waiting = busy;
    if (busy || !model) return;
    if (pad.empty) {
      paint(
        seen,
        new Float32Array(layout.width * layout.height * layout.channels).fill(placement.bright ? 0 : 1),
        layout,
      );
      return view.showShares([], classes, output);
    }
    busy = true;
    try {
      const asked = model;
      const data = pad.image(layout, placement);
      paint(
        seen,
        data.map((value) => (value - layout.low) / (layout.high - layout.low)),
        layout,
      );
      const shape = [1, layout.height, layout.width, layout.channels];
      const { outputs } = await asked.run(rows({ [input.name]: { shape, dtype: "float32", data } }, asked.batch));
      if (asked === model) view.showShares(shares(row(outputs[output.name], 0)), classes, output);
    } finally {
      busy = false;
    }
    if (waiting) await classify(); // the drawing went on meanwhile: classify its newest state
  };
  const redraw = () => requestAnimationFrame(() => classify().catch(view.showProblem));
  const pad = new Pad(view.byId<HTMLCanvasElement>("pad"), redraw);
  view.byId("clear").addEventListener("click", () => pad.clear());
  return {
    use(usable) {
      model = usable;
      view.byId("answers").textContent = `Variant ${usable.variant.id} classifies the drawing.`;
      view.show("sketch");
      redraw();
    },
    pause() {
      model = undefined;
    },
    stop() {
      model = undefined;
      view.hide("sketch");
    },
  };
}
