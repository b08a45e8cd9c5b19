import { afterEach, expect, test, vi } from "vitest";
import {
  type Bundle,
  bytesOfVariant,
  inferenceSignature,
  openBundle,
  provedDifference,
  referenceOf,
  type Variant,
} from "../src/page/bundle";
import { golden } from "./golden";

const URL_OF_PAGE = "http://127.0.0.1:1/";
const FILES = ["manifest.json", "reference.npz", "proof.json"];

/** A server of the golden bundle in which `changed` replaces files; undefined takes one away. */
function serve(changed: Record<string, unknown> = {}): void {
  const files = new Map<string, BodyInit>(FILES.map((name) => [name, golden(name)]));
  for (const [name, value] of Object.entries(changed)) {
    if (value === undefined) files.delete(name);
    else files.set(name, JSON.stringify(value));
  }
  vi.stubGlobal("document", { baseURI: URL_OF_PAGE, getElementById: () => null });
  vi.stubGlobal("fetch", async (url: string) => {
    const body = files.get(url.replace(`${URL_OF_PAGE}bundle/`, ""));
    return body === undefined ? new Response("", { status: 404 }) : new Response(body);
  });
}

afterEach(() => vi.unstubAllGlobals());

const manifest = () => JSON.parse(new TextDecoder().decode(golden("manifest.json")));
const variantOf = (bundle: Bundle, id: string): Variant => bundle.manifest.variants.find((one) => one.id === id)!;

test("the golden bundle is read: its variants, reference inputs and proof", async () => {
  serve();
  const bundle = await openBundle();
  expect(bundle.manifest.name).toBe("linear");
  expect(bundle.manifest.variants.map(({ id }) => id)).toEqual(["float32", "float16", "dynamic", "int8", "onnx"]);
  expect(bytesOfVariant(bundle.manifest, variantOf(bundle, "int8"))).toBe(1512);
  expect(provedDifference(bundle, variantOf(bundle, "float32"))).toBe(8.940696716308594e-8); // of tflite-runtime
  expect(inferenceSignature(bundle, variantOf(bundle, "int8"))).toBe("infer");
  const reference = referenceOf(bundle, "infer")!;
  expect(reference.count).toBe(16);
  expect([reference.inputs.x!.shape, reference.outputs.p!.shape]).toEqual([
    [16, 4],
    [16, 3],
  ]);
});

test("variants of a format or scheme that this page does not know are left out", async () => {
  const later = manifest();
  later.variants[0].scheme = "int2";
  later.variants[1].format = "coreml";
  later.variants[2].scheme = "constructor";
  serve({ "manifest.json": later });
  expect((await openBundle()).manifest.variants.map(({ id }) => id)).toEqual(["int8", "onnx"]);
});

test("a bundle without proof and reference inputs is read", async () => {
  const without = manifest();
  delete without.files["reference.npz"];
  serve({ "manifest.json": without, "reference.npz": undefined, "proof.json": undefined });
  const bundle = await openBundle();
  expect(bundle.reference).toBeUndefined();
  expect(referenceOf(bundle, "infer")).toBeUndefined();
  expect(provedDifference(bundle, variantOf(bundle, "int8"))).toBeUndefined();
  expect(inferenceSignature(bundle, variantOf(bundle, "int8"))).toBe("infer");
});

test("a runtime on which a variant failed does not count for its error", async () => {
  const row = { variant: "int8", output: "p" };
  serve({
    "proof.json": {
      parity: [
        { ...row, max_abs: 0.01, passed: true },
        { ...row, max_abs: 9, passed: false },
      ],
    },
  });
  const bundle = await openBundle();
  expect(provedDifference(bundle, variantOf(bundle, "int8"))).toBe(0.01);
});

test("no signature is chosen when none takes the reference inputs", async () => {
  const other = manifest();
  const [x] = other.signatures.infer.inputs;
  for (const inputs of [[{ ...x, name: "z" }], [x, { ...x, name: "z" }], []]) {
    other.signatures.infer.inputs = inputs;
    serve({ "manifest.json": other });
    const bundle = await openBundle();
    expect(inferenceSignature(bundle, variantOf(bundle, "int8"))).toBeUndefined();
  }
});

test("another format, and a file that is not served, are named", async () => {
  serve({ "manifest.json": { ...manifest(), format: "edgeloop-bundle/2" } });
  await expect(openBundle()).rejects.toThrow("The bundle has the format edgeloop-bundle/2. This page reads");
  serve({ "manifest.json": undefined });
  await expect(openBundle()).rejects.toThrow("The server answered 404 for manifest.json.");
});
