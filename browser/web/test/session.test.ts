import { afterEach, expect, test, vi } from "vitest";
import { openBundle } from "../src/page/bundle";
import type { Engine, Model } from "../src/page/engines/engine";
import type { Tensors } from "../src/page/engines/tensors";
import { Session } from "../src/page/session";
import { golden } from "./golden";

afterEach(() => vi.unstubAllGlobals());

async function session(): Promise<Session> {
  vi.stubGlobal("document", { baseURI: "http://127.0.0.1:1/", getElementById: () => null });
  vi.stubGlobal("fetch", async (url: string) => new Response(golden(url.split("/bundle/")[1]!)));
  return new Session(await openBundle());
}

/** An engine that gives the reference's own outputs plus `off`, and writes down what it does. */
function engine(off = 0): Engine & { log: string[] } {
  const log: string[] = [];
  const made = {
    id: "fake",
    name: "Fake",
    runtime: "fake",
    log,
    missing: async () => undefined,
    refuses: () => undefined,
    async open(bundle: Parameters<Engine["open"]>[0], variant: Parameters<Engine["open"]>[1]): Promise<Model> {
      log.push(`open ${variant.id}`);
      const cold = { download_ms: 0, init_ms: 0, compile_ms: 0 };
      const run = async ({ x }: Tensors) => {
        const all = bundle.reference!.get("out/p")!;
        const data = (all.data as Float32Array).slice(0, x!.shape[0]! * 3).map((value) => value + off);
        return { outputs: { p: { shape: [x!.shape[0]!, 3], dtype: all.dtype, data } }, wall_ms: [0.5] };
      };
      const program = { inputs: new Map(), run: async () => ({}) };
      return {
        engine: made,
        variant,
        signature: "infer",
        batch: 2,
        cold,
        program,
        run,
        close: () => log.push("close"),
      };
    },
  };
  return made;
}

const one: Tensors = { x: { shape: [1, 4], dtype: "float32", data: Float32Array.of(1, 2, 3, 4) } };

test("a model that agrees is used: it answers one sample, whatever the batch of its file", async () => {
  const made = await session();
  const fake = engine();
  const answered = vi.fn();
  made.addEventListener("answer", ({ detail }) => answered(detail.outputs.p!.shape));
  expect(await made.ask(one)).toBeUndefined(); // nothing is open
  await made.choose(fake, made.bundle.manifest.variants[0]!);
  expect(made.current?.standing).toEqual({ used: true, text: "parity check passed" });
  expect((await made.ask(one))!.wall_ms).toBe(0.5);
  expect(answered).toHaveBeenCalledExactlyOnceWith([1, 3]);
});

test("a model that differs is judged and does not answer", async () => {
  const made = await session();
  await made.choose(engine(0.5), made.bundle.manifest.variants[0]!);
  expect(made.current?.standing?.used).toBe(false);
  expect(made.current!.proof!.rows[0]!.max_abs).toBeCloseTo(0.5);
  expect(await made.ask(one)).toBeUndefined();
});

test("of choices that wait only the newest is opened, and the model before is closed", async () => {
  const made = await session();
  const fake = engine();
  const [a, b, c] = made.bundle.manifest.variants;
  await made.choose(fake, a!);
  await Promise.all([made.choose(fake, b!), made.choose(fake, c!)]);
  expect(fake.log).toEqual(["open float32", "close", "open dynamic"]);
  expect(made.current?.variant).toBe(c);
});

test("an engine's error is the standing of the variant, and the next choice works", async () => {
  const made = await session();
  const broken = { ...engine(), open: () => Promise.reject(new Error("out of memory")) };
  const [a, b] = made.bundle.manifest.variants;
  await made.choose(broken, a!);
  expect(made.current?.standing).toEqual({ used: false, text: "Fake cannot run the file: out of memory" });
  await made.choose(engine(), b!);
  expect(made.current?.standing?.used).toBe(true);
});

test("a check that throws takes the proof of the check before with it", async () => {
  const made = await session();
  await made.choose(engine(), made.bundle.manifest.variants[0]!);
  expect(made.current!.proof).toBeDefined();
  made.report({ used: false, text: "device lost" });
  expect(made.current!.proof).toBeUndefined();
});

test("the engine that was chosen last counts for the next choice, also while it waits", async () => {
  const made = await session();
  const [fake, other] = [engine(), engine()];
  const [a, b] = made.bundle.manifest.variants;
  await made.choose(fake, a!);
  const waiting = made.choose(other, a!);
  expect([made.current!.engine, made.chosen!.engine]).toEqual([fake, other]);
  await Promise.all([waiting, made.choose(made.chosen!.engine, b!)]);
  expect(made.current).toMatchObject({ engine: other, variant: b });
});

test("work runs one after the other, also after one that failed", async () => {
  const made = await session();
  const log: string[] = [];
  const first = made.exclusively(async () => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    log.push("first");
    throw new Error("broken");
  });
  const second = made.exclusively(async () => log.push("second"));
  await expect(first).rejects.toThrow("broken");
  await second;
  expect(log).toEqual(["first", "second"]);
});
