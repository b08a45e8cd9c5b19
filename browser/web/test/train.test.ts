import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Tensor } from "../src/npy";
import type { LitertFile } from "../src/page/engines/litert_library";
import { distance, Federation, type Means } from "../src/page/train/federation";
import { readFrame, writeFrame } from "../src/page/train/frame";
import { Images } from "../src/page/train/images";
import { generator, permutation } from "../src/page/train/random";
import { scalar, Trainer } from "../src/page/train/trainer";
import { readWeights, writeWeights } from "../src/page/train/weights_file";

const SPECS = [
  { name: "w000", shape: [2, 1] },
  { name: "w001", shape: [1] },
];

/** A file of batch 2 over inputs of 2 numbers. Its loss is the mean of its labels, and it counts label 1 as correct. */
function fakeFile(fed: number[][] = []): LitertFile {
  let row = [1, 2, 3];
  const y: { shape: number[]; dtype: string } = { shape: [2], dtype: "int32" };
  const inputs = new Map([
    ["x", { shape: [2, 2], dtype: "float32" }],
    ["y", y],
    ["lr", { shape: [], dtype: "float32" }],
  ]);
  const labels = (given: Record<string, Tensor>): number[] => Array.from(given.y!.data as Int32Array);
  const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const runs: Record<string, (given: Record<string, Tensor>) => Record<string, Tensor>> = {
    train: (given) => {
      fed.push(labels(given));
      row = row.map((value) => value + Number(given.lr!.data[0]));
      return { loss: scalar(mean(labels(given))) };
    },
    evaluate: (given) => ({
      loss: scalar(mean(labels(given))),
      correct: scalar(labels(given).filter((label) => label === 1).length),
    }),
    infer: () => ({}),
    get_weights: () => ({
      w000: { shape: [2, 1], dtype: "float32", data: Float32Array.from(row.slice(0, 2)) },
      w001: { shape: [1], dtype: "float32", data: Float32Array.from(row.slice(2)) },
    }),
    set_weights: ({ w000, w001 }) => {
      row = [...(w000!.data as Float32Array), ...(w001!.data as Float32Array)];
      return {};
    },
  };
  return {
    signatures: Object.keys(runs),
    program: (name) => ({ inputs, run: async (given) => runs[name!]!(given) }),
    close() {},
  };
}

const samples = (labels: number[]) => ({ inputs: labels.map((label) => Float32Array.of(label, 0)), labels });

test("the last batch of an epoch is filled with the epoch's first samples", async () => {
  const fed: number[][] = [];
  const trainer = new Trainer(fakeFile(fed), SPECS, 4);
  const orders = [
    [2, 0, 1],
    [1, 2, 0],
  ];
  const made = await trainer.train(samples([0, 1, 3]), { epochs: 2, lr: 0.5, orders });
  expect(fed).toEqual([
    [3, 0],
    [1, 3],
    [1, 3],
    [0, 1],
  ]);
  expect(made.losses).toEqual([(1.5 + 2) / 2, (2 + 0.5) / 2]);
  expect([made.steps, made.examples]).toEqual([4, 3]);
  expect(Array.from(await trainer.getWeights())).toEqual([3, 4, 5]); // 4 steps of 0.5
});

test("each sample is measured once, whatever fills the last batch", async () => {
  const trainer = new Trainer(fakeFile(), SPECS, 4);
  const found = await trainer.evaluate(samples([1, 1, 3]));
  expect(found.loss).toBeCloseTo(5 / 3, 12);
  expect(found.accuracy).toBeCloseTo(2 / 3, 12);
});

test("labels and samples that do not fit are refused, and so is a loss without an end", async () => {
  const trainer = new Trainer(fakeFile(), SPECS, 4);
  await expect(trainer.train(samples([4]), { epochs: 1, lr: 1 })).rejects.toThrow("a label is 4");
  await expect(trainer.train(samples([]), { epochs: 1, lr: 1 })).rejects.toThrow("0 samples");
  const short = { inputs: [Float32Array.of(1)], labels: [1] };
  await expect(trainer.train(short, { epochs: 1, lr: 1 })).rejects.toThrow("a sample has 1 values");
  await expect(trainer.train(samples([1]), { epochs: 1, lr: Number.NaN })).rejects.toThrow("must be above 0");
  const infinite = new Trainer(fakeFile(), SPECS, Number.POSITIVE_INFINITY);
  const large = { inputs: [Float32Array.of(0, 0)], labels: [2 ** 31 - 1] };
  await expect(infinite.train(large, { epochs: 1, lr: 1 })).resolves.toBeDefined();
});

test("an order follows from its seed and holds each sample once", () => {
  const order = permutation(50, generator([1, 2]));
  expect(order).toEqual(permutation(50, generator([1, 2])));
  expect(order).not.toEqual(permutation(50, generator([2, 1])));
  expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
});

test("a frame comes back as it was, and a cut one is refused", () => {
  const frame = writeFrame({ tab: "é" }, Float32Array.of(1.5, -2));
  const { header, row } = readFrame(frame);
  expect(header).toEqual({ tab: "é", v: 1, bytes: 8 });
  expect(Array.from(row)).toEqual([1.5, -2]);
  expect(() => readFrame(frame.slice(0, -1))).toThrow("holds 7 bytes");
  expect(() => readFrame(new Uint8Array())).toThrow("a line of JSON");
});

test("weights are written by name and shape, and files of another model are refused", () => {
  const row = Float32Array.of(1, 2, 3);
  const file = writeWeights(row, SPECS);
  expect(readWeights(file, SPECS)).toEqual(row);
  expect(() => readWeights(file, [SPECS[0]!, { name: "w001", shape: [2] }])).toThrow("w001");
  expect(() => readWeights(file, SPECS.slice(0, 1))).toThrow("2 arrays");
  expect(() => readWeights(writeWeights(Float32Array.of(1, Number.NaN, 3), SPECS), SPECS)).toThrow("NaN");
  expect(() => readWeights(Uint8Array.of(1, 2, 3), SPECS)).toThrow("no .npz file");
});

test("the fifth image of each class is held out", () => {
  const images = new Images([]);
  for (let i = 0; i < 11; i++)
    images.add({ model: "m", data: Float32Array.of(i), label: i % 2, held: images.holds(i % 2) });
  expect(images.held.inputs.map(([value]) => value)).toEqual([8, 9]);
  expect(images.train.labels.length).toBe(9);
});

test("the norm of an update is that of the difference", () => {
  expect(distance(Float32Array.of(3, 0), Float32Array.of(0, 4))).toBe(5);
});

// The gateway, played: each request gets the next answer that is left for its path.
let answers: Record<string, (() => Response)[]>;
let asked: { path: string; body: unknown }[];

const json = (document: unknown, status = 200) => new Response(JSON.stringify(document), { status });

const work = (kind = "train") => {
  const config = { work: "1", base: "b", kind, epochs: 1, lr: 0.5, seed: [0, 3, 0], round: 3 };
  return new Response(writeFrame(config, Float32Array.of(1, 2, 3)), {
    headers: { "Content-Type": "application/octet-stream" },
  });
};

beforeEach(() => {
  [answers, asked] = [{}, []];
  vi.stubGlobal("document", { baseURI: "http://localhost/" });
  vi.stubGlobal("fetch", async (url: string, { body }: { body: string | Uint8Array }) => {
    const path = url.split("/").at(-1)!;
    asked.push({ path, body: typeof body === "string" ? JSON.parse(body) : readFrame(body) });
    const next = answers[path]?.shift();
    if (!next) throw new TypeError("Failed to fetch");
    return next();
  });
  vi.stubGlobal("setTimeout", (call: () => void) => setImmediate(call)); // nothing waits
  vi.stubGlobal("clearTimeout", clearImmediate);
});

afterEach(() => {
  vi.unstubAllGlobals();
});

/** Take part until `shown` has the words; what was shown, and what counted. */
async function takePart(until: string, changes: Partial<Means> = {}) {
  const [shown, counted]: [string[], unknown[]] = [[], []];
  const federation: Federation = new Federation({
    client: "me",
    trainer: async () => new Trainer(fakeFile(), SPECS, 4),
    samples: async () => ({ train: samples([0, 1]), all: samples([0, 1]) }),
    exclusively: (one) => one(),
    sent: async (one) => void counted.push(one),
    show: (_stage, words) => {
      shown.push(words);
      if (words.includes(until)) federation.pause();
    },
    ...changes,
  });
  await federation.start();
  return { shown, counted };
}

const WAITS = () => json({ connected: true, said: "" });

test("a round is trained, sent back with its base, and recorded", async () => {
  answers = { join: [() => json({ tab: "t" })], poll: [work, WAITS], reply: [() => json({ counted: true })] };
  const { counted } = await takePart("Connected");
  const { header, row } = asked.find(({ path }) => path === "reply")!.body as ReturnType<typeof readFrame>;
  expect(header).toMatchObject({ tab: "t", work: "1", base: "b", kind: "train", loss: 0.5, steps: 1, examples: 2 });
  expect(Array.from(row)).toEqual([1.5, 2.5, 3.5]);
  expect(counted).toMatchObject([{ round: 3, examples: 2, norm: Math.sqrt(0.75) }]);
  expect(asked.at(-1)).toEqual({ path: "leave", body: { tab: "t" } }); // the pause
});

test("a gateway that cannot be reached, and one that knows the tab no more, are joined again", async () => {
  const gone = () => json({ error: "It was started again.", final: false }, 410);
  answers = {
    join: [() => Response.error(), () => json({ tab: "one" }), () => json({ tab: "two" })],
    poll: [gone, WAITS],
  };
  const { shown } = await takePart("Connected");
  expect(asked.map(({ path }) => path)).toEqual(["join", "join", "poll", "join", "poll", "leave"]);
  expect(asked.at(-2)!.body).toEqual({ tab: "two" });
  expect(shown).toContain("It was started again. Joining again.");
});

test("a second tab waits for the first, and one that the federation refuses asks no more", async () => {
  const twice = () => json({ error: "Another tab takes part.", code: "twice" }, 409);
  answers = {
    join: [twice, () => json({ tab: "t" })],
    poll: [() => json({ error: "The key is not registered.", final: true }, 410)],
  };
  const { shown } = await takePart("never");
  expect(shown).toContain("Another tab takes part. Trying again.");
  expect(shown.at(-1)).toBe("The key is not registered.");
  expect(asked.map(({ path }) => path)).toEqual(["join", "join", "poll"]);
});

test("what fails in the tab is told to its user, and only that it failed to the server", async () => {
  answers = { join: [() => json({ tab: "t" })], poll: [work, WAITS], reply: [() => json({ counted: true })] };
  const secret = { train: samples([9]), all: samples([9]) };
  const { shown, counted } = await takePart("Connected", { samples: async () => secret });
  expect(shown.some((words) => words.includes("a label is 9"))).toBe(true);
  const { header } = asked.find(({ path }) => path === "reply")!.body as ReturnType<typeof readFrame>;
  expect(header.failed).toBe("the page shows its user why");
  expect(counted).toEqual([]);
});

test("after a pause nothing is sent, also not the training that ran", async () => {
  answers = { join: [() => json({ tab: "t" })], poll: [work] };
  await takePart("Training in round 3");
  expect(asked.map(({ path }) => path)).toEqual(["join", "poll", "leave"]);
});
