import { expect, test } from "vitest";
import { type Frame, readFrames } from "../src/node/frames";

const bytes = (text: string) => new TextEncoder().encode(text);

async function read(...blocks: (string | Uint8Array)[]): Promise<Frame[]> {
  async function* stream() {
    for (const block of blocks) yield typeof block === "string" ? bytes(block) : block;
  }
  const frames: Frame[] = [];
  for await (const frame of readFrames(stream())) frames.push(frame);
  return frames;
}

test("a header line and its payload are one frame, wherever the blocks end", async () => {
  const whole = '{"v":1,"id":7,"op":"run","bytes":3}\nab\n{"v":1,"id":8,"op":"close","bytes":0}\n';
  for (const size of [1, 5, 37, whole.length]) {
    const blocks = Array.from({ length: Math.ceil(whole.length / size) }, (_, i) =>
      whole.slice(i * size, (i + 1) * size),
    );
    const frames = await read(...blocks);
    expect(frames.map(({ header }) => [header.id, header.op])).toEqual([
      [7, "run"],
      [8, "close"],
    ]);
    expect(frames.map(({ payload }) => new TextDecoder().decode(payload))).toEqual(["ab\n", ""]);
  }
});

test("a header without a size has no payload", async () => {
  expect((await read('{"op":"probe"}\n'))[0]!.payload).toHaveLength(0);
});

test("the end of the stream between frames is the end", async () => {
  expect(await read()).toEqual([]);
});

test.each([
  ['{"bytes":-1}\n', "the payload of a frame has -1 bytes. Expected a whole number from 0 to 2147483648"],
  ['{"bytes":1.5}\n', "the payload of a frame has 1.5 bytes"],
  ['{"bytes":3000000000}\n', "the payload of a frame has 3000000000 bytes"],
  ['{"bytes":4}\nab', "the payload ended after 2 of 4 bytes"],
  ["no JSON\n", "not valid JSON"],
])("a stream that holds no frame is refused (%j)", async (text, message) => {
  await expect(read(text)).rejects.toThrow(message);
});

test("a header longer than 1 MiB is refused before its end is read", async () => {
  await expect(read(new Uint8Array(1 << 20).fill(32), "x", "y\n")).rejects.toThrow("longer than 1 MiB");
});
