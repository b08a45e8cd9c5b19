import { expect, test } from "vitest";
import { forgetHeaps, heapBytes, openingOf, watchHeaps } from "../src/page/race/heap";

// (module (import "env" "memory" (memory 1)))
const IMPORTS_MEMORY = Uint8Array.of(
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  ...[2, 15, 1, 3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2, 0, 1],
);

test("memories count for the engine that was opened until it gives them back, each once", async () => {
  const wasm = { ...WebAssembly, instantiate: WebAssembly.instantiate } as typeof WebAssembly;
  watchHeaps(wasm);
  const memory = new WebAssembly.Memory({ initial: 2 });
  for (let twice = 0; twice < 2; twice++)
    await openingOf("e", () => wasm.instantiate(IMPORTS_MEMORY, { env: { memory } }));
  expect(heapBytes("e")).toBe(2 * 65536);
  expect(heapBytes("another")).toBeUndefined();
  forgetHeaps("e");
  expect(heapBytes("e")).toBeUndefined();
});
