// Frames on stdin and stdout, as in src/edgeloop/processes/frames.py: one JSON line {v, id, op, bytes, ...} of at most
// 1 MiB, then `bytes` bytes of payload.

const HEADER_LIMIT_BYTES = 1 << 20;
const PAYLOAD_LIMIT_BYTES = 2 ** 31;

export type Header = Record<string, unknown>;

export interface Frame {
  header: Header;
  payload: Uint8Array;
}

/** Frames until the stream ends. Throws for anything else than a frame. */
export async function* readFrames(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Frame> {
  const blocks = stream[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);
  const more = async (): Promise<Buffer | undefined> => {
    const { done, value } = await blocks.next();
    return done ? undefined : Buffer.from(value);
  };
  for (;;) {
    let end = rest.indexOf(10);
    while (end < 0) {
      if (rest.length > HEADER_LIMIT_BYTES) throw new Error("the header of a frame is longer than 1 MiB");
      const block = await more();
      if (!block) return;
      rest = Buffer.concat([rest, block]);
      end = rest.indexOf(10);
    }
    const header = JSON.parse(rest.toString("utf8", 0, end)) as Header;
    const size = Number(header.bytes ?? 0);
    if (!Number.isInteger(size) || size < 0 || size > PAYLOAD_LIMIT_BYTES)
      throw new Error(
        `the payload of a frame has ${header.bytes} bytes. Expected a whole number from 0 to ${PAYLOAD_LIMIT_BYTES}`,
      );
    const parts = [rest.subarray(end + 1)];
    let have = parts[0]!.length;
    while (have < size) {
      const block = await more();
      if (!block) throw new Error(`the payload ended after ${have} of ${size} bytes`);
      parts.push(block);
      have += block.length;
    }
    const whole = Buffer.concat(parts);
    rest = whole.subarray(size);
    yield { header, payload: whole.subarray(0, size) };
  }
}

export function writeFrame(header: Header, payload: Uint8Array = new Uint8Array()): Promise<void> {
  const line = Buffer.from(`${JSON.stringify({ ...header, v: 1, bytes: payload.length })}\n`);
  return new Promise((resolve, reject) =>
    process.stdout.write(Buffer.concat([line, payload]), (error) => (error ? reject(error) : resolve())),
  );
}
