// What this browser can do, asked or measured: nothing is taken from its name. Used by Engine.missing and by the panel
// "This browser".

import { fromBase64 } from "../../npy";
import { threadCount } from "./threads";

export interface Gpu {
  /** As the browser names it. */
  readonly name: string;
  /** The CPU computes what a graphics processor would: correct, but slow. */
  readonly software: boolean;
}

/** What the engines on WebAssembly use here. TF.js uses one thread. */
export interface Threads {
  readonly litertjs: number;
  readonly onnxruntime: number;
  readonly tfjs: 1;
}

export interface Capabilities {
  /** Cross-origin isolation: threads, and a finer clock. */
  readonly isolated: boolean;
  readonly processors: number;
  readonly threads: Threads;
  readonly wasm: boolean;
  readonly simd: boolean;
  readonly relaxed_simd: boolean;
  /** undefined: not available. */
  readonly webgl: Gpu | undefined;
  readonly webgpu: Gpu | undefined;
  /** The smallest step of performance.now() seen while it was read for some milliseconds. */
  readonly timer_resolution_ms: number;
  /** What the browser tells, rounded and capped by it; undefined: it does not tell. */
  readonly device_memory_gb: number | undefined;
  /** The most that JavaScript objects may take, without WebAssembly and the GPU; undefined: it does not tell. */
  readonly js_heap_limit_bytes: number | undefined;
}

const SIMD = "AGFzbQEAAAABBQFgAAF7AwIBAAoKAQgAQQD9D/1iCw==";
const RELAXED_SIMD = "AGFzbQEAAAABBQFgAAF7AwIBAAoPAQ0AQQH9D0EC/Q/9gAIL";
const EMPTY = "AGFzbQEAAAA=";
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|software|basic render|microsoft basic/i;

export async function capabilities(): Promise<Capabilities> {
  const { deviceMemory } = navigator as { deviceMemory?: number };
  const { memory } = performance as { memory?: { jsHeapSizeLimit: number } };
  return {
    isolated: crossOriginIsolated,
    processors: navigator.hardwareConcurrency,
    threads: threadsOfEngines(),
    wasm: wasmBlocked() === undefined,
    simd: hasSimd(),
    relaxed_simd: hasRelaxedSimd(),
    webgl: webgl(),
    webgpu: (await webgpu()).gpu,
    timer_resolution_ms: timerResolution(),
    device_memory_gb: deviceMemory,
    js_heap_limit_bytes: memory?.jsHeapSizeLimit,
  };
}

export function threadsOfEngines(): Threads {
  const threads = threadCount();
  return { litertjs: hasRelaxedSimd() ? threads : 1, onnxruntime: threads, tfjs: 1 };
}

export const hasSimd = (): boolean => validates(SIMD);

export const hasRelaxedSimd = (): boolean => validates(RELAXED_SIMD);

/** Why WebAssembly does not run here; undefined: it does. */
export function wasmBlocked(): string | undefined {
  if (typeof WebAssembly === "undefined")
    return "This browser has no WebAssembly, or it is switched off. Allow WebAssembly in the browser's settings, or use another browser.";
  try {
    new WebAssembly.Module(fromBase64(EMPTY));
    return undefined;
  } catch (error) {
    if (!(error instanceof WebAssembly.CompileError || error instanceof EvalError)) throw error;
    return (
      "WebAssembly is blocked on this page, by its Content-Security-Policy or by the browser's settings. " +
      "Serve the page with script-src 'self' 'wasm-unsafe-eval', and allow WebAssembly in the browser."
    );
  }
}

/** As `wasmBlocked`, and without SIMD instructions, which every engine on WebAssembly is built with. */
export function wasmMissing(): string | undefined {
  return (
    wasmBlocked() ??
    (hasSimd() ? undefined : "This browser's WebAssembly has no SIMD instructions. Use a newer browser.")
  );
}

let probedWebgl: { gpu: Gpu | undefined } | undefined;

/** The graphics processor behind WebGL 2; undefined: the browser has none. Asked once: it may take a tenth of a second. */
export function webgl(): Gpu | undefined {
  probedWebgl ??= { gpu: probeWebgl() };
  return probedWebgl.gpu;
}

function probeWebgl(): Gpu | undefined {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return undefined;
  const extension = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(extension ? extension.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension("WEBGL_lose_context")?.loseContext(); // a browser holds few contexts
  return { name, software: SOFTWARE.test(name) };
}

export interface WebGpu {
  readonly gpu?: Gpu;
  readonly missing?: string;
}

let probedWebgpu: Promise<WebGpu> | undefined;

/** The graphics processor behind WebGPU, or why there is none. Asked once. */
export function webgpu(): Promise<WebGpu> {
  probedWebgpu ??= probeWebgpu();
  return probedWebgpu;
}

async function probeWebgpu(): Promise<WebGpu> {
  if (!navigator.gpu)
    return {
      missing: isSecureContext
        ? "This browser has no WebGPU."
        : "WebGPU needs a secure page: https, or an address of this machine itself.",
    };
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) return { missing: "WebGPU found no graphics adapter that it can use." };
  const { vendor, architecture, description, device, isFallbackAdapter } = adapter.info;
  const name = description || [vendor, architecture, device].filter(Boolean).join(" ") || "not named";
  const software = isFallbackAdapter || SOFTWARE.test(`${vendor} ${architecture} ${description}`);
  return { gpu: { name, software } };
}

/** The smallest difference between two readings of the clock, in milliseconds, of those in 10 ms. */
export function timerResolution(now: () => number = () => performance.now()): number {
  const start = now();
  let [least, last] = [Infinity, start];
  while (last - start < 10) {
    const time = now();
    if (time > last) least = Math.min(least, time - last);
    last = time;
  }
  return least;
}

function validates(base64: string): boolean {
  return typeof WebAssembly !== "undefined" && WebAssembly.validate(fromBase64(base64));
}
