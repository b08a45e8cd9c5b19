// node tfjs_runner.mjs ROOT: the agent protocol (src/edgeloop/processes/frames.py) for TF.js graph models below ROOT.
//
//   probe    -> {runtime, version, node, backend}
//   prepare  {path}                          -> {load_ms, signatures}
//   run      {warmup, runs} + npz of inputs  -> {wall_ms, cpu_ms, rss_peak_bytes} + npz of the last run's outputs
//   close

import "./console";
import { existsSync, readFileSync } from "node:fs";
import * as tf from "@tensorflow/tfjs";
import { readNpz, type Tensor, writeNpz } from "../npy";
import { type Graph, runGraph } from "../tfjs_graph";
import { lacksKernel, useWasm } from "./backend";
import { type Frame, type Header, readFrames, writeFrame } from "./frames";
import { loadGraph } from "./graph";

const root = process.argv[2] ?? ".";
let graph: Graph | undefined;
let path = "";

type Reply = [Header, Uint8Array?];

const operations: Record<string, (frame: Frame) => Promise<Reply>> = {
  async probe() {
    return [{ runtime: "tfjs", version: tf.version.tfjs, node: process.version, backend: tf.getBackend() }];
  },

  async prepare({ header }) {
    const start = performance.now();
    path = String(header.path);
    graph = await loadGraph(root, path);
    const names = { inputs: Object.keys(graph.signature.inputs), outputs: Object.keys(graph.signature.outputs) };
    return [{ load_ms: performance.now() - start, signatures: { "": names } }];
  },

  async run({ header, payload }) {
    const inputs = readNpz(payload);
    const [warmup, runs] = [Number(header.warmup ?? 0), Number(header.runs ?? 1)];
    const [wall_ms, cpu_ms]: [number[], number[]] = [[], []];
    let outputs = new Map<string, Tensor>();
    for (let i = 0; i < warmup + runs; i++) {
      const [wall, cpu] = [performance.now(), process.cpuUsage()];
      outputs = await runOrFallBack(inputs);
      const used = process.cpuUsage(cpu);
      if (i < warmup) continue;
      cpu_ms.push((used.user + used.system) / 1e3);
      wall_ms.push(performance.now() - wall);
    }
    return [{ wall_ms, cpu_ms, rss_peak_bytes: rssPeakBytes() }, writeNpz(outputs)];
  },
};

/** One run; a model with an op that WebAssembly lacks is loaded again for plain JavaScript. */
async function runOrFallBack(inputs: ReadonlyMap<string, Tensor>): Promise<Map<string, Tensor>> {
  if (!graph) throw new Error("no model is loaded. Send prepare first");
  try {
    return await runGraph(graph, inputs);
  } catch (error) {
    if (!lacksKernel(error)) throw error;
    await tf.setBackend("cpu");
    graph = await loadGraph(root, path);
    return runGraph(graph, inputs);
  }
}

/** This process's own peak, null where there is no procfs: getrusage's would be the parent's if that was larger. */
function rssPeakBytes(): number | null {
  const status = "/proc/self/status";
  const line = existsSync(status) ? /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(status, "utf8")) : null;
  return line ? Number(line[1]) * 1024 : null;
}

async function main(): Promise<void> {
  await useWasm();
  for await (const frame of readFrames(process.stdin)) {
    const { id, op } = frame.header;
    if (op === "close") return;
    try {
      const operation = operations[String(op)];
      if (!operation) throw new Error(`unknown operation ${op}. Expected one of ${Object.keys(operations).join(", ")}`);
      const [header, payload] = await operation(frame);
      await writeFrame({ ...header, id, op }, payload);
    } catch (error) {
      // Every failure travels to the host, which names and raises it.
      const { name, message } = error instanceof Error ? error : { name: "Error", message: String(error) };
      await writeFrame({ id, op, error: { type: name, found: message } });
    }
  }
}

await main();
process.exit(0); // TF.js may hold timers
