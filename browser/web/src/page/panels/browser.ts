// What this browser offers to an engine: asked and measured when the panel is opened.

import { type Capabilities, capabilities, type Gpu } from "../engines/capabilities";
import { ENGINES } from "../engines/engine";
import type { Session } from "../session";
import { element } from "../view/dom";

export async function mount(into: HTMLElement, session: Session): Promise<void> {
  const found = await session.exclusively(capabilities);
  const list = element("dl", { className: "facts" });
  const engines = ENGINES.map(({ id, name }): [string, string] => [name, session.engines.get(id) ?? "available"]);
  for (const [title, text] of [...facts(found), ...engines])
    list.append(element("div", {}, element("dt", {}, title), element("dd", {}, text)));
  into.append(list);
}

/** Titles and texts, in the order in which they are shown. */
export function facts(found: Capabilities): [string, string][] {
  const { litertjs, onnxruntime, tfjs } = found.threads;
  const step = found.timer_resolution_ms * 1e3;
  return [
    [
      "Cross-origin isolated",
      found.isolated ? "yes: engines may use threads" : "no: engines run on one thread, and the clock is coarse",
    ],
    ["Processors", `${found.processors}`],
    ["Threads in use", `LiteRT.js ${litertjs}, ONNX Runtime Web ${onnxruntime}, TF.js ${tfjs}`],
    ["Clock", `resolution of ${Number(step.toPrecision(2))} µs, measured`],
    ["WebAssembly", found.wasm ? `yes, ${instructions(found)}` : "no"],
    ["WebGL", graphics(found.webgl)],
    ["WebGPU", graphics(found.webgpu)],
    [
      "Memory of the device",
      found.device_memory_gb === undefined ? "not told" : `${found.device_memory_gb} GB or more`,
    ],
    [
      "Limit of JavaScript objects",
      found.js_heap_limit_bytes === undefined ? "not told" : `${(found.js_heap_limit_bytes / 1e9).toFixed(1)} GB`,
    ],
  ];
}

function instructions({ simd, relaxed_simd }: Capabilities): string {
  if (!simd) return "without SIMD instructions";
  return relaxed_simd ? "with SIMD and relaxed SIMD instructions" : "with SIMD, without relaxed SIMD instructions";
}

function graphics(gpu: Gpu | undefined): string {
  if (!gpu) return "not available";
  return gpu.software ? `software, computed by the CPU: ${gpu.name}` : gpu.name;
}
