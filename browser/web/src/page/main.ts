// The page: opens the bundle of its server, shows it and runs it. With "#engine" it shows nothing and waits for calls.

import { api } from "./api";
import { type Bundle, openBundle, type Reference, referenceOf, type Variant } from "./bundle";
import { answers, oneRun } from "./calls";
import { classOutput, compare as compareSamples, median } from "./compare";
import { ENGINES, type Model, type Tensors } from "./engines/engine";
import { imageLayout, unit } from "./image";
import { compare, isClassifier } from "./parity";
import { prepareSketch, type Sketch } from "./sketch";
import { runsHere, type Standing, standingAfterError, standingAfterRun } from "./standing";
import * as view from "./view";

const RUNS = 30;
const WARMUP = 5;

window.edgeloop = api;
if (location.hash !== "#engine") start().catch(view.showProblem);

async function start(): Promise<void> {
  const bundle = await openBundle();
  view.showName(bundle);
  const isolated = crossOriginIsolated
    ? "cross-origin isolated, so its clock has a resolution of 5 µs"
    : "not cross-origin isolated, so its clock has a resolution of 0.1 ms";
  view.byId("engine").textContent =
    `LiteRT.js runs the model in this tab, and every file comes from this server. The page is ${isolated}.`;
  const first = bundle.manifest.variants.find(runsHere);
  const sketch = prepareSketch(bundle);
  let turn = Promise.resolve(); // one after the other: a second choice waits for the first
  const choose = (variant: Variant): void => {
    turn = turn.then(() => prove(bundle, variant, sketch)).catch(view.showProblem);
  };
  view.showVariants(bundle, first, choose);
  if (first) choose(first);
  else
    throw new Error(
      "The bundle has no .tflite variant, and this page runs no other format. Convert the model again with --to tflite.",
    );
}

let open: Model | undefined;

/** Run the reference inputs; then use the variant if it agrees with the source model, or show why it is not used. */
async function prove(bundle: Bundle, variant: Variant, sketch: Sketch | undefined): Promise<void> {
  document.body.dataset.state = "running";
  view.markChosen(variant);
  sketch?.pause();
  view.clearProof();
  open?.close(); // the model chosen before
  const { model, reference, outputs, error } = await runReference(bundle, variant);
  open = model;
  const standing = model ? judge(bundle, model, reference, outputs) : standingAfterError(error);
  view.showStanding(variant, standing);
  if (model && standing.used) {
    if (reference) {
      const { wall_ms } = await model.run(oneRun(reference, model.batch), WARMUP, RUNS);
      view.showTime(median(wall_ms), RUNS, reference.whole ? 1 : model.batch, variant);
    }
    sketch?.use(model);
  } else sketch?.stop();
  document.body.dataset.state = "ready";
}

interface TrialResult {
  model?: Model;
  /** The bundle's inputs and outputs for the model's signature; undefined when it has none. */
  reference?: Reference;
  /** The model's own outputs for those inputs. */
  outputs?: Tensors;
  error?: unknown;
}

/** An error of LiteRT.js is a result to show: the page goes on with the other variants. */
async function runReference(bundle: Bundle, variant: Variant): Promise<TrialResult> {
  let model: Model | undefined;
  try {
    model = await ENGINES[0]!.open(bundle, variant);
    const reference = referenceOf(bundle, model.signature);
    if (!reference) return { model };
    return { model, reference, outputs: await answers(model, reference) };
  } catch (error) {
    model?.close();
    return { error };
  }
}

/** Show the variant's outputs beside the source model's, and decide whether they agree. */
function judge(bundle: Bundle, { variant, signature }: Model, reference?: Reference, outputs?: Tensors): Standing {
  const specs = bundle.manifest.signatures[signature]!;
  if (!reference || !outputs) return standingAfterRun(variant, undefined);
  const labelled = specs.outputs.some(({ labels }) => labels.length);
  const { source } = bundle.manifest;
  const proof = compare(variant.scheme, reference.outputs, outputs, isClassifier(reference.outputs, labelled), source);
  if (Object.keys(reference.outputs).every((name) => name in outputs)) {
    const comparison = compareSamples(outputs, reference, specs.outputs);
    view.showComparison(comparison, proof);
    const images = specs.inputs.flatMap((spec) => {
      const layout = imageLayout(spec, reference.inputs[spec.name]!);
      return layout ? [{ layout, of: (i: number) => unit(reference.inputs[spec.name]!, i, layout) }] : [];
    });
    view.showSamples(comparison.samples, classOutput(specs.outputs), images[0]);
  }
  return standingAfterRun(variant, proof, source);
}
