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
  vi.stubGlobal("document", { baseURI: URL_OF_PAGE, getElementById: () => null, querySelector: () => null });
  vi.stubGlobal("fetch", async (url: string) => {
    const body = files.get(url.replace(`${URL_OF_PAGE}bundle/`, ""));
    return body === undefined ? new Response("", { status: 404 }) : new Response(body);
  });
}

afterEach(() => vi.unstubAllGlobals());

const manifest = () => JSON.parse(new TextDecoder().decode(golden("manifest.json")));
/** `proof_hash` of src/edgeloop/bundle.py gives this for the golden proof.json. */
const PROOF_SHA256 = "fe7a358d209337717209678dab50130fb3277f50d9a1634abc8518e56c3c426a";
const proved = (proof_sha256 = PROOF_SHA256) => ({ ...manifest(), proof_sha256 });
const variantOf = (bundle: Bundle, id: string): Variant => bundle.manifest.variants.find((one) => one.id === id)!;

test("the golden bundle is read: its variants, reference inputs and proof", async () => {
  serve({ "manifest.json": proved() });
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

test("a proof that the manifest does not name is not asked for", async () => {
  serve();
  const asked = vi.fn(fetch);
  vi.stubGlobal("fetch", asked);
  expect((await openBundle()).parity).toEqual([]);
  expect(asked.mock.calls.map(([url]) => url)).not.toContain(`${URL_OF_PAGE}bundle/proof.json`);
});

test("another proof than the manifest names is refused", async () => {
  serve({ "manifest.json": proved("0".repeat(64)) });
  await expect(openBundle()).rejects.toThrow("proof.json is damaged: it is not the proof that the manifest names.");
});

test("an error of our own is not said to be the server's", async () => {
  serve();
  vi.stubGlobal("document", {
    baseURI: URL_OF_PAGE,
    getElementById: () => {
      throw new TypeError("no such line");
    },
  });
  await expect(openBundle()).rejects.toThrow("no such line");
});

test.each([
  [null, "Start edgeloop browse again"],
  [{}, "Wait until the site can be reached again"],
])("a server that is gone is said, on a static site without edgeloop browse", async (exported, words) => {
  const line = { setAttribute: () => undefined, textContent: "" };
  vi.stubGlobal("document", {
    baseURI: URL_OF_PAGE,
    getElementById: () => null,
    createElement: () => line,
    querySelector: (selector: string) => (selector.startsWith("meta") ? exported : null),
  });
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
  await expect(openBundle()).rejects.toThrow(`does not answer. ${words}, then reload`);
  expect(line.textContent).toContain(`${words} to load more.`);
});

test("a runtime on which a variant failed does not count for its error", async () => {
  const row = { variant: "int8", output: "p" };
  serve();
  const bundle = {
    ...(await openBundle()),
    parity: [
      { ...row, max_abs: 0.01, passed: true },
      { ...row, max_abs: 9, passed: false },
    ],
  };
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
