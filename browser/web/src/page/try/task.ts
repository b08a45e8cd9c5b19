// What the model asks for: its inputs as the manifest describes them, and the bundle's own examples of them.

import { type Bundle, inferenceSignature, isWhole, type Reference, referenceOf, type TensorSpec } from "../bundle";
import { callOf } from "../calls";
import type { Tensors } from "../engines/tensors";
import { imageLayout, isSketchable, type Layout, unit } from "./image";
import { CENTERED, type Placement, placementOf } from "./placement";

export interface ImageInput {
  spec: TensorSpec;
  layout: Layout;
  /** Like the reference images, if it is small enough to draw. */
  placement: Placement;
}

export interface Task {
  /** The first axis of each counts samples, also where the model itself has no batch axis. */
  inputs: TensorSpec[];
  /** Undefined when the bundle has no reference.npz. */
  reference: Reference | undefined;
  /** Undefined unless the model's one input is an image. */
  image: ImageInput | undefined;
}

/** Undefined when no variant has a signature that takes the reference inputs. */
export function taskOf(bundle: Bundle): Task | undefined {
  const names = bundle.manifest.variants.map((variant) => inferenceSignature(bundle, variant));
  const signature = names.find((name) => name !== undefined);
  if (signature === undefined) return undefined;
  const specs = bundle.manifest.signatures[signature]!.inputs;
  const reference = referenceOf(bundle, signature);
  const inputs = isWhole(bundle, signature) ? specs.map((spec) => ({ ...spec, shape: [1, ...spec.shape] })) : specs;
  return { inputs, reference, image: inputs.length === 1 ? imageInput(inputs[0]!, reference) : undefined };
}

function imageInput(spec: TensorSpec, reference: Reference | undefined): ImageInput | undefined {
  const examples = reference?.inputs[spec.name];
  const layout = imageLayout(spec, examples);
  if (!layout) return undefined;
  const images = examples && isSketchable(layout) ? imagesOf(examples, layout) : [];
  return { spec, layout, placement: images.length ? placementOf(images, layout) : CENTERED };
}

const imagesOf = (examples: NonNullable<Tensors[string]>, layout: Layout): number[][] =>
  Array.from({ length: examples.shape[0]! }, (_, i) => unit(examples, i, layout));

/** Sample `i` of the reference's inputs or outputs: each with a first axis of length 1. */
export function sampleOf(tensors: Tensors, i: number): Tensors {
  return Object.fromEntries(
    Object.entries(callOf(tensors, i)).map(([name, tensor]) => [name, { ...tensor, shape: [1, ...tensor.shape] }]),
  );
}
