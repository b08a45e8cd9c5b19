// The bundle this server serves: manifest.json, reference.npz, proof.json. Format: docs/bundle.md.

import { readNpz, type Tensor } from "../npy";
import type { Quantization } from "./engines/quantization";
import { bundleFile, request, sha256, urlOf } from "./offline/download";
import { again } from "./offline/presence";
import { FLOORS, type Origin } from "./parity";

const FORMATS = ["tflite", "onnx", "tfjs", "savedmodel"];

export interface TensorSpec {
  name: string;
  shape: (number | null)[];
  dtype: string;
  kind: string;
  range: [number, number] | null;
  layout?: string | null;
  sample_rate_hz?: number | null;
  labels: string[];
}

export interface Variant {
  id: string;
  entry: string;
  files: string[];
  format: string;
  scheme: string;
  signatures: string[];
  io?: Record<string, Quantization>;
  requires: { runtimes?: string[] };
  notes?: string[];
}

export interface Manifest {
  format: string;
  name: string;
  version: number;
  source: Origin & { file: string; format: string };
  files: Record<string, { bytes: number; sha256: string }>;
  signatures: Record<string, { inputs: TensorSpec[]; outputs: TensorSpec[] }>;
  variants: Variant[];
  /** The SHA-256 of proof.json as `proofHash` writes it; a manifest without a proof has none. */
  proof_sha256?: string;
  /** In `get_weights` order; a manifest may have none. */
  weights?: { name: string; shape: number[] }[];
}

/** Of proof.json. */
interface Proved {
  variant: string;
  max_abs: number;
  passed: boolean;
  accuracy?: number | null;
}

export interface Bundle {
  manifest: Manifest;
  /** `in/NAME` and `out/NAME`; undefined when the bundle has no reference.npz. */
  reference: Map<string, Tensor> | undefined;
  parity: Proved[];
}

/** One entry point with the source model's own answers to real inputs. */
export interface Reference {
  inputs: Record<string, Tensor>;
  outputs: Record<string, Tensor>;
  /** How many samples. */
  count: number;
  /** The model has no batch axis: a sample is all that one call takes, and the first axis of each array counts calls. */
  whole: boolean;
}

export { urlOf };

/** Throws when no bundle is served or its format is another. `early` is told the manifest before the rest has come. */
export async function openBundle(early: (manifest: Manifest) => void = () => {}): Promise<Bundle> {
  const found = await request(urlOf("manifest.json"));
  if (!found.ok)
    throw new Error(`The server answered ${found.status} for manifest.json. ${again()}, then reload the page.`);
  const manifest = (await found.json()) as Manifest;
  if (manifest.format !== "edgeloop-bundle/1")
    throw new Error(
      `The bundle has the format ${manifest.format}. This page reads edgeloop-bundle/1. Open the bundle with a newer edgeloop.`,
    );
  // a later edgeloop may have written formats and schemes that this page does not know
  manifest.variants = manifest.variants.filter(
    ({ format, scheme }) => FORMATS.includes(format) && Object.hasOwn(FLOORS, scheme),
  );
  early(manifest);
  const [reference, parity] = await Promise.all([readReference(manifest), readProof(manifest)]);
  return { manifest, reference, parity };
}

async function readReference(manifest: Manifest): Promise<Map<string, Tensor> | undefined> {
  return "reference.npz" in manifest.files ? readNpz(await bundleFile(manifest, "reference.npz")) : undefined;
}

/** None without `proof_sha256`: nothing says that a proof is there, nor that it is this bundle's. */
async function readProof({ proof_sha256: expected }: Manifest): Promise<Proved[]> {
  if (expected === undefined) return [];
  const found = await request(urlOf("proof.json"));
  if (!found.ok) return [];
  const proof = (await found.json()) as { parity?: Proved[] };
  if (((await proofHash(proof)) ?? expected) !== expected)
    throw new Error(
      "proof.json is damaged: it is not the proof that the manifest names. Convert the model again, or copy the bundle again.",
    );
  return proof.parity ?? [];
}

/** SHA-256 of the canonical JSON (RFC 8785) without `manifest_sha256`, as `proof_hash` of src/edgeloop/bundle.py. */
const proofHash = ({ manifest_sha256: _, ...proof }: Record<string, unknown>): Promise<string | undefined> =>
  sha256(new TextEncoder().encode(JSON.stringify(proof, sorted)));

/** For JSON.stringify: the keys of objects in the order of their UTF-16 code units. */
const sorted = (_: string, value: unknown): unknown =>
  value && typeof value === "object" && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value;

/** The signature of `variant` to run: the one that reference.npz has inputs for. */
export function inferenceSignature({ manifest, reference }: Bundle, variant: Variant): string | undefined {
  if (!reference) return variant.signatures.includes("infer") ? "infer" : variant.signatures[0];
  return variant.signatures.find((name) => {
    const specs = manifest.signatures[name];
    return specs?.inputs.length && specs.inputs.every((input) => reference.has(`in/${input.name}`));
  });
}

/** Undefined when the bundle has no reference.npz. */
export function referenceOf(bundle: Bundle, signature: string): Reference | undefined {
  if (!bundle.reference) return undefined;
  const specs = bundle.manifest.signatures[signature]!;
  const named = (side: string, all: TensorSpec[]) =>
    Object.fromEntries(
      all.flatMap(({ name }) => {
        const value = bundle.reference?.get(`${side}/${name}`);
        return value ? [[name, value]] : [];
      }),
    );
  const inputs = named("in", specs.inputs);
  const count = Object.values(inputs)[0]?.shape[0] ?? 0;
  return { inputs, outputs: named("out", specs.outputs), count, whole: isWhole(bundle, signature) };
}

/** Whether the model has no batch axis: its reference arrays have one axis more than its inputs. Of a bundle without them
 * that is known only where an input is a single number. */
export const isWhole = ({ manifest, reference }: Bundle, signature: string): boolean =>
  manifest.signatures[signature]!.inputs.some(({ name, shape }) =>
    reference ? reference.get(`in/${name}`)?.shape.length === shape.length + 1 : !shape.length,
  );

export const bytesOfVariant = (manifest: Manifest, variant: Variant): number =>
  variant.files.reduce((sum, file) => sum + (manifest.files[file]?.bytes ?? 0), 0);

/** The largest error on any runtime the variant was proved on at conversion; undefined when it was not proved. */
export function provedDifference(bundle: Bundle, variant: Variant): number | undefined {
  const found = bundle.parity.filter((row) => row.variant === variant.id && row.passed).map((row) => row.max_abs);
  return found.length ? Math.max(...found) : undefined;
}
