import { expect, test, vi } from "vitest";
import type { Bundle, TensorSpec, Variant } from "../src/page/bundle";

vi.stubGlobal("crossOriginIsolated", true);
vi.stubGlobal("location", new URL("http://localhost/"));

const { timerResolution } = await import("../src/page/engines/capabilities");
const { defineEngine } = await import("../src/page/engines/define");
const { covered } = await import("../src/page/engines/downloads");
const { ENGINES, engineOf } = await import("../src/page/engines/engine");
const { explained } = await import("../src/page/engines/failures");
const { isNote, withoutSource } = await import("../src/page/engines/litert_log");
const { facts } = await import("../src/page/panels/browser");
const { threadCount } = await import("../src/page/engines/threads");

const spec = (name: string, dtype: string): TensorSpec => ({
  name,
  shape: [null, 1],
  dtype,
  kind: "other",
  range: null,
  labels: [],
});

const variant = (format: string, io?: Variant["io"]): Variant => ({
  id: format,
  entry: `${format}.file`,
  files: [],
  format,
  scheme: "float32",
  signatures: ["infer"],
  io,
  requires: {},
});

const bundle = (dtype: string): Bundle => ({
  manifest: {
    format: "edgeloop-bundle/1",
    name: "b",
    version: 1,
    source: { file: "m.keras", format: "keras" },
    files: {},
    signatures: { infer: { inputs: [spec("x", dtype)], outputs: [spec("y", "float32")] } },
    variants: [],
  },
  reference: undefined,
  parity: [],
});

test("each engine runs one format and says so of the others", () => {
  const runs = Object.fromEntries(
    ENGINES.map((engine) => [
      engine.id,
      ["tflite", "tfjs", "onnx", "savedmodel"].filter((format) => !engine.refuses(bundle("float32"), variant(format))),
    ]),
  );
  expect(runs).toEqual({
    "litertjs-wasm": ["tflite"],
    "litertjs-webgpu": ["tflite"],
    "tfjs-wasm": ["tfjs"],
    "tfjs-webgl": ["tfjs"],
    "tfjs-webgpu": ["tfjs"],
    "ort-wasm": ["onnx"],
    "ort-webgpu": ["onnx"],
  });
  expect(engineOf("ort-wasm").refuses(bundle("float32"), variant("tflite"))).toBe(
    "ONNX Runtime Web runs .onnx files, not tflite",
  );
  expect(() => engineOf("tflite")).toThrow("no engine is named tflite. Expected one of litertjs-wasm,");
});

test("types that an engine has no tensors for are refused by the name of the tensor", () => {
  const wide = bundle("float64");
  expect(engineOf("tfjs-wasm").refuses(wide, variant("tfjs"))).toBe(
    "TF.js has no tensors of the type float64, which the input x is",
  );
  expect(engineOf("litertjs-wasm").refuses(bundle("int64"), variant("tflite"))).toBe(
    "LiteRT.js does not take tensors of the type int64, as x is",
  );
});

test("WebGPU refuses a variant that stores integers; WebAssembly takes it", () => {
  const stored = variant("tflite", { x: { dtype: "int8", scale: 0.1, zero_point: 0 } });
  expect(engineOf("litertjs-wasm").refuses(bundle("float32"), stored)).toBeUndefined();
  expect(engineOf("litertjs-webgpu").refuses(bundle("float32"), stored)).toBe(
    "LiteRT.js on WebGPU takes and gives float32 alone, and x is int8",
  );
});

test("a refused variant is not loaded", async () => {
  const library = vi.fn();
  const engine = defineEngine({
    id: "e",
    name: "E",
    runtime: "e",
    missing: async () => undefined,
    refuses: () => "no",
    library,
  });
  await expect(engine.open(bundle("float32"), variant("tflite"))).rejects.toThrow("no");
  expect(library).not.toHaveBeenCalled();
});

test.each([
  [
    "RangeError: WebAssembly.Memory(): could not allocate memory",
    "the memory of this browser is not enough for E on F. ",
  ],
  ["Aborted(OOM). Build with -sASSERTIONS for more info.", "the memory of this browser is not enough for E on F. "],
  [
    "Can't create a session. failed to allocate a buffer of size 40080364.",
    "the memory of this browser is not enough for E on F. ",
  ],
  ["std::bad_alloc", "the memory of this browser is not enough for E on F. "],
  ["Kernel 'Einsum' not registered for backend 'wasm'", "E on F has no kernel for the operator Einsum. "],
  ["Unknown op 'Foo'. File an issue", "E on F does not know the operator Foo. "],
])("%s is said in plain words", (said, words) => {
  expect(explained("E, F", new Error(said)).message).toContain(words);
});

test("Emscripten's advice to whoever built the library is left out", () => {
  const said = "Aborted(CompileError: WebAssembly.instantiate(): no section). Build with -sASSERTIONS for more info.";
  expect(explained("E", new Error(said)).message).toBe("WebAssembly.instantiate(): no section");
});

test("what LiteRT only mentions is no error; errors are", () => {
  expect(isNote("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.")).toBe(true);
  expect(isNote("I1130 14:26:17.224999  736560 delegate_webgpu.cc:243] Created a WebGPU environment")).toBe(true);
  expect(isNote("WARNING: [npu_registry.cc:34] NPU accelerator could not be loaded and registered: k.")).toBe(true);
  expect(isNote("ERROR: Failed to initialize kernel.")).toBe(false);
  expect(isNote("WARNING: [model.cc:3] something else")).toBe(false);
  expect(isNote("E1130 14:26:33.233999  736560 delegate_webgpu.cc:373] Failed to create")).toBe(false);
});

test("the places in LiteRT's source are left out", () => {
  expect(withoutSource("E1130 14:26:33.233999  736560 delegate_webgpu.cc:373] Failed to create")).toBe(
    "Failed to create",
  );
  expect(withoutSource("ERROR: [./a/b.h:70] No such")).toBe("No such");
});

test("time in which two downloads overlap counts once", () => {
  // 0..10 and 5..12 overlap: 12 together; 20..21 is 1 more
  expect(
    covered([
      [5, 12],
      [0, 10],
      [20, 21],
    ]),
  ).toBe(13);
  expect(covered([])).toBe(0);
});

test("the resolution of a clock is its smallest step", () => {
  let reads = 0;
  expect(timerResolution(() => Math.floor(reads++ / 3) * 0.5)).toBe(0.5); // each time is read three times
});

test.each([
  [true, 8, "", "", 4], // half of the processors, at most 4
  [true, 2, "", "", 1],
  [true, 8, "", "#engine", 1], // programs
  [true, 2, "?threads=2", "#engine", 2],
  [true, 2, "?threads=99", "", 4], // twice the processors
  [true, 8, "?threads=none", "", 4],
  [false, 8, "?threads=4", "", 1], // threads need isolation
])("isolated %s, %i processors, page %s%s: %i threads", (isolated, processors, search, hash, expected) => {
  vi.stubGlobal("crossOriginIsolated", isolated);
  vi.stubGlobal("navigator", { hardwareConcurrency: processors });
  expect(threadCount({ search, hash })).toBe(expected);
});

test("a software adapter is named as software, and what the browser does not tell is said so", () => {
  const shown = new Map(
    facts({
      isolated: true,
      processors: 4,
      threads: { litertjs: 2, onnxruntime: 2, tfjs: 1 },
      wasm: true,
      simd: true,
      relaxed_simd: false,
      webgl: { name: "SwiftShader", software: true },
      webgpu: undefined,
      timer_resolution_ms: 0.005,
      device_memory_gb: undefined,
      js_heap_limit_bytes: 4.3e9,
    }),
  );
  expect(shown.get("WebGL")).toBe("software, computed by the CPU: SwiftShader");
  expect(shown.get("WebGPU")).toBe("not available");
  expect(shown.get("Clock")).toBe("resolution of 5 µs, measured");
  expect(shown.get("Threads in use")).toBe("LiteRT.js 2, ONNX Runtime Web 2, TF.js 1");
  expect(shown.get("WebAssembly")).toBe("yes, with SIMD, without relaxed SIMD instructions");
  expect(shown.get("Memory of the device")).toBe("not told");
  expect(shown.get("Limit of JavaScript objects")).toBe("4.3 GB");
});
