import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Tensor } from "../src/npy";
import type { Variant } from "../src/page/bundle";
import type { LitertFile } from "../src/page/engines/litert_library";
import type { Session } from "../src/page/session";
import { distance, Federation, type Means, type Message } from "../src/page/train/federation";
import { readFrame, writeFrame } from "../src/page/train/frame";
import { Images, imagesKey } from "../src/page/train/images";
import { openTrainer } from "../src/page/train/open";
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
  expect(() => readWeights(file, [{ name: "w000", shape: [1, 2] }, SPECS[1]!])).toThrow("float32 [2,1]");
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

test("images belong to the names of the classes, and those of another tab are taken over once", () => {
  const image = { shape: [8, 8, 1], range: [0, 1] };
  expect(imagesKey("m", image, ["cat", "dog"])).not.toBe(imagesKey("m", image, ["dog", "cat"]));
  expect(imagesKey("m", image, ["cat", "dog"])).toBe(imagesKey("m", { ...image }, ["cat", "dog"]));
  const stored = (id: number) => ({ id, model: "m", data: Float32Array.of(id), label: 0, held: false });
  const images = new Images([stored(1)]);
  let changes = 0;
  images.addEventListener("change", () => changes++);
  images.replace([stored(1)]);
  images.replace([stored(1), stored(2)]);
  images.add(stored(2)); // it was stored before the other tab's were read
  images.remove([stored(1)]);
  expect([images.all.map(({ id }) => id), changes]).toEqual([[2], 2]);
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
  vi.stubGlobal("document", { baseURI: "http://localhost/", getElementById: () => null });
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

type Recorded = Message & { asked: number; counted?: boolean };

/** Take part until `shown` has the words; what was shown, and what was recorded after how many requests. */
async function takePart(until: string, changes: Partial<Means> = {}) {
  const [shown, recorded]: [string[], Recorded[]] = [[], []];
  const federation: Federation = new Federation({
    client: "me",
    trainer: async () => new Trainer(fakeFile(), SPECS, 4),
    samples: async () => ({ train: samples([0, 1]), all: samples([0, 1]) }),
    exclusively: (one) => one(),
    model: "a",
    record: async (one) => {
      const row: Recorded = { ...one, asked: asked.length };
      recorded.push(row);
      return async (counted) => {
        row.counted = counted;
      };
    },
    show: (_stage, words) => {
      shown.push(words);
      if (words.includes(until)) federation.pause();
    },
    ...changes,
  });
  await federation.start();
  return { shown, recorded };
}

const WAITS = () => json({ connected: true, said: "" });

test("a round is trained, sent back with its base, and recorded", async () => {
  answers = { join: [() => json({ tab: "t" })], poll: [work, WAITS], reply: [() => json({ counted: true })] };
  const { recorded } = await takePart("Connected");
  const { header, row } = asked.find(({ path }) => path === "reply")!.body as ReturnType<typeof readFrame>;
  expect(header).toMatchObject({ tab: "t", work: "1", base: "b", kind: "train", loss: 0.5, steps: 1, examples: 2 });
  expect(Array.from(row)).toEqual([1.5, 2.5, 3.5]);
  expect(recorded).toMatchObject([
    { kind: "join", asked: 0, counted: true },
    { kind: "train", asked: 2, counted: true, round: 3, examples: 2, norm: Math.sqrt(0.75) }, // before the reply
  ]);
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
  const { shown, recorded } = await takePart("Connected", { samples: async () => secret });
  expect(shown.some((words) => words.includes("a label is 9"))).toBe(true);
  const { header } = asked.find(({ path }) => path === "reply")!.body as ReturnType<typeof readFrame>;
  expect(header.failed).toBe("the page shows its user why");
  expect(recorded.at(-1)).toMatchObject({ kind: "failed", counted: false });
});

test("after a pause nothing is sent, also not the training that ran", async () => {
  answers = { join: [() => json({ tab: "t" })], poll: [work] };
  await takePart("Training in round 3");
  expect(asked.map(({ path }) => path)).toEqual(["join", "poll", "leave"]);
});

/** A measuring that takes a turn of the event loop for each batch. */
const slow = () => {
  const file = fakeFile();
  const program = (name: string) => {
    const made = file.program(name);
    return {
      ...made,
      run: (given: Record<string, Tensor>) => new Promise<void>(setImmediate).then(() => made.run(given)),
    };
  };
  return new Trainer({ ...file, program } as LitertFile, SPECS, 4);
};

test("after a pause no measurement is sent, and none goes on", async () => {
  answers = { join: [() => json({ tab: "t" })], poll: [() => work("evaluate")] };
  let beat = () => {};
  vi.stubGlobal("setInterval", (call: () => void) => {
    beat = call;
  });
  const { recorded } = await takePart("Measuring", {
    trainer: async () => slow(),
    exclusively: (one) => one().finally(() => beat()),
  });
  expect(asked.map(({ path }) => path)).toEqual(["join", "poll", "leave"]);
  expect(recorded.map(({ kind }) => kind)).toEqual(["join"]);
});

test("a tab that is admitted after a pause leaves, and the old turn's 410 does not take the new turn's place", async () => {
  const gone = () => json({ error: "It left.", final: false }, 410);
  let [answerJoin, answerPoll] = [() => {}, () => {}];
  const heldBack = (call: (go: () => void) => void, then: () => Response) =>
    new Promise<Response>((resolve) => call(() => resolve(then())));
  const given: Record<string, (() => Response | Promise<Response>)[]> = {
    join: [
      () =>
        heldBack(
          (go) => (answerJoin = go),
          () => json({ tab: "late" }),
        ),
      () => json({ tab: "old" }),
      () => json({ tab: "new" }),
    ],
    poll: [() => heldBack((go) => (answerPoll = go), gone), WAITS, WAITS],
  };
  answers = given as typeof answers;
  let waits = 0;
  const federation: Federation = new Federation({
    client: "me",
    model: "a",
    trainer: async () => slow(),
    samples: async () => ({ train: samples([0]), all: samples([0]) }),
    exclusively: (one) => one(),
    record: async () => async () => {},
    show: (_stage, words) => {
      if (!words.startsWith("Connected")) return;
      if (++waits === 1)
        answerPoll(); // the old turn hears that its tab has left
      else federation.pause();
    },
  });
  const tick = () => new Promise((resolve) => setImmediate(resolve));
  const turns = [federation.start()];
  await tick();
  federation.pause();
  answerJoin();
  await turns[0];
  expect(asked.at(-1)).toEqual({ path: "leave", body: { tab: "late" } });
  turns.push(federation.start());
  await tick();
  federation.pause(); // amid the poll of "old"
  turns.push(federation.start());
  await Promise.all(turns);
  const later = asked.slice(2).map(({ path, body }) => `${path} ${(body as { tab?: string }).tab ?? ""}`);
  expect(later).toEqual(["join ", "poll old", "leave old", "join ", "poll new", "poll new", "leave new"]);
});

test("a loss that is no number is told as a failure", async () => {
  answers = {
    join: [() => json({ tab: "t" })],
    poll: [() => work("evaluate"), WAITS],
    reply: [() => json({ counted: true })],
  };
  const nan = fakeFile();
  const program = (name: string) =>
    name === "evaluate"
      ? { ...nan.program(name), run: async () => ({ loss: scalar(Number.NaN), correct: scalar(0) }) }
      : nan.program(name);
  const trainer = new Trainer({ ...nan, program } as LitertFile, SPECS, 4);
  const { shown } = await takePart("Connected", { trainer: async () => trainer });
  expect(shown).toContain("This round failed: the loss is NaN.");
  const { header } = asked.find(({ path }) => path === "reply")!.body as ReturnType<typeof readFrame>;
  expect(header).toMatchObject({ failed: "the page shows its user why", kind: "evaluate" });
});

test("a reply that is lost is sent again as it was, and one that is refused for good becomes a failure", async () => {
  answers = {
    join: [() => json({ tab: "t" })],
    poll: [work, work, WAITS],
    reply: [
      () => json({ error: "The requests take all the memory." }, 503),
      () => json({ counted: true }),
      () => json({ error: "The gateway cannot read the request." }, 400),
      () => json({ counted: true }),
    ],
  };
  const { recorded } = await takePart("Connected");
  const replies = asked.filter(({ path }) => path === "reply").map(({ body }) => body as ReturnType<typeof readFrame>);
  expect(replies[1]).toEqual(replies[0]);
  expect(asked.filter(({ path }) => path === "poll").length).toBe(3); // nothing is trained again
  expect(replies.map(({ header }) => "failed" in header)).toEqual([false, false, false, true]);
  expect(recorded.slice(1).map(({ kind, counted }) => [kind, counted])).toEqual([
    ["train", true],
    ["train", false],
    ["failed", false],
  ]);
});

test("a tab whose failure is refused as well, whose page has another model, or that cannot record ends", async () => {
  const refused = () => json({ error: "Unreadable." }, 400);
  answers = { join: [() => json({ tab: "t" })], poll: [work], reply: [refused, refused] };
  expect((await takePart("never")).shown.at(-1)).toBe("The server of this page answered 400: Unreadable.");
  expect(asked.at(-1)).toEqual({ path: "leave", body: { tab: "t" } });
  answers = { join: [() => json({ error: "Another model.", code: "model" }, 409)] };
  const { shown, recorded } = await takePart("never");
  expect([shown.at(-1), recorded.at(-1)!.counted]).toEqual(["Another model.", false]);
  asked = [];
  const full = await takePart("never", { record: () => Promise.reject(new Error("full")) });
  expect(full.shown.at(-1)).toContain("cannot record what is sent");
  expect(asked).toEqual([]);
});

test("a file that is not the manifest's is not trained", async () => {
  vi.stubGlobal("fetch", async () => new Response(Uint8Array.of(1, 2, 3)));
  const files = { "t.tflite": { bytes: 3, sha256: "0".repeat(64) } };
  const session = { bundle: { manifest: { files, weights: SPECS } } } as unknown as Session;
  await expect(openTrainer(session, { entry: "t.tflite" } as Variant, 4)).rejects.toThrow("t.tflite is damaged");
});
