// The page: opens the bundle its server serves, shows it, runs it. With "#engine" it shows nothing and waits for programs.

import { api } from "./api";
import { type Bundle, openBundle, referenceOf, referenceSignature, runsHere, urlOf, type Variant } from "./bundle";
import { classOutput, compare, median, row, shares } from "./compare";
import { ownBatch, rows, run } from "./engine";
import { CENTERED, imageLayout, isSketchable, paint, placementOf, unit } from "./image";
import { Pad } from "./pad";
import * as view from "./view";

const RUNS = 30;
const WARMUP = 5;

window.edgeloop = api;
if (location.hash !== "#engine") start().catch(view.showProblem);

async function start(): Promise<void> {
  const bundle = await openBundle();
  view.showName(bundle);
  const isolated = crossOriginIsolated ? "cross-origin isolated, so times are exact to 5 µs" : "not cross-origin isolated, so times are exact to 0.1 ms";
  view.byId("engine").textContent = `LiteRT.js in this tab, from files of this server alone; ${isolated}.`;
  const first = bundle.manifest.variants.find(runsHere);
  const sketch = prepareSketch(bundle);
  let turn = Promise.resolve(); // one after the other: a second choice waits for the first
  const choose = (variant: Variant): void => {
    turn = turn.then(() => prove(bundle, variant, sketch)).catch(view.showProblem);
  };
  view.showVariants(bundle, first, choose);
  if (first) choose(first);
  else throw new Error("this bundle has no .tflite variant, the one kind this page runs. Convert with --to tflite.");
}

async function prove(bundle: Bundle, variant: Variant, sketch: Sketch | undefined): Promise<void> {
  document.body.dataset.state = "running";
  view.byId("problem").hidden = true;
  view.markChosen(variant);
  const signature = referenceSignature(bundle, variant);
  if (!signature) throw new Error(`${variant.id} cannot be checked here: the bundle holds no reference inputs for it.`);
  const specs = bundle.manifest.signatures[signature]!;
  const reference = referenceOf(bundle, signature);
  const name = variant.signatures.length > 1 ? signature : null;
  const url = urlOf(variant.entry);
  const batch = await ownBatch(url, name);
  const whole = rows(reference.inputs, Math.ceil(reference.count / batch) * batch);
  const comparison = compare((await run(url, name, whole)).outputs, reference, specs.outputs);
  view.showComparison(comparison);
  const output = classOutput(specs.outputs);
  const images = specs.inputs.flatMap((spec) => {
    const layout = imageLayout(spec, reference.inputs[spec.name]!);
    return layout ? [{ layout, of: (i: number) => unit(reference.inputs[spec.name]!, i, layout) }] : [];
  });
  view.showSamples(comparison.samples, output, images[0]);
  const { wall_ms } = await run(url, name, rows(reference.inputs, batch), WARMUP, RUNS);
  view.showTime(median(wall_ms), RUNS, batch, variant);
  sketch?.use(url, name, batch);
  document.body.dataset.state = "ready";
}

interface Sketch {
  use(url: string, signature: string | null, batch: number): void;
}

/** The pad, where the model takes one small image and answers with classes. */
function prepareSketch(bundle: Bundle): Sketch | undefined {
  const signature = bundle.manifest.variants.filter(runsHere).map((variant) => referenceSignature(bundle, variant)).find(Boolean);
  const specs = signature ? bundle.manifest.signatures[signature]! : undefined;
  const input = specs?.inputs[0];
  const output = specs && classOutput(specs.outputs);
  const reference = signature ? referenceOf(bundle, signature) : undefined;
  const layout = input && reference && imageLayout(input, reference.inputs[input.name]!);
  if (!reference || !layout || !output || specs.inputs.length > 1 || input.dtype !== "float32" || !isSketchable(layout)) return undefined;

  const images = Array.from({ length: reference.count }, (_, i) => unit(reference.inputs[input.name]!, i, layout));
  const placement = images.length ? placementOf(images, layout) : CENTERED;
  const seen = view.byId<HTMLCanvasElement>("seen");
  const classes = output.shape[1]!;
  let model: { url: string; signature: string | null; batch: number } | undefined;
  let busy = false;
  let waiting = false;

  const classify = async (): Promise<void> => {
    waiting = busy;
    if (busy || !model) return;
    if (pad.empty) {
      paint(seen, new Float32Array(layout.width * layout.height * layout.channels).fill(placement.bright ? 0 : 1), layout);
      return view.showShares([], classes, output);
    }
    busy = true;
    const data = pad.image(layout, placement);
    paint(seen, data.map((value) => (value - layout.low) / (layout.high - layout.low)), layout);
    const shape = [1, layout.height, layout.width, layout.channels];
    const drawing = rows({ [input.name]: { shape, dtype: "float32", data } }, model.batch);
    const { outputs } = await run(model.url, model.signature, drawing);
    view.showShares(shares(row(outputs[output.name], 0)), classes, output);
    busy = false;
    if (waiting) await classify(); // the drawing went on meanwhile: classify its newest state
  };
  const redraw = () => requestAnimationFrame(() => classify().catch(view.showProblem));
  const pad = new Pad(view.byId<HTMLCanvasElement>("pad"), redraw);
  view.byId("clear").addEventListener("click", () => pad.clear());
  return {
    use(url, name, batch) {
      model = { url, signature: name, batch };
      view.show("sketch");
      redraw();
    },
  };
}
