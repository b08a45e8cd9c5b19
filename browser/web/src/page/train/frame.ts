// A frame in the body of a request or response, as in src/edgeloop/processes/frames.py: one JSON line, then float32 numbers.

export interface Frame {
  header: Record<string, unknown>;
  row: Float32Array<ArrayBuffer>;
}

export function writeFrame(header: Record<string, unknown>, row?: Float32Array): Uint8Array<ArrayBuffer> {
  const bytes = row ? new Uint8Array(row.buffer, row.byteOffset, row.byteLength) : new Uint8Array();
  const line = new TextEncoder().encode(`${JSON.stringify({ ...header, v: 1, bytes: bytes.length })}\n`);
  const frame = new Uint8Array(line.length + bytes.length);
  frame.set(line);
  frame.set(bytes, line.length);
  return frame;
}

/** Throws for anything else than one whole frame. */
export function readFrame(bytes: Uint8Array): Frame {
  const end = bytes.indexOf(10);
  if (end < 0) throw new Error("a frame begins with a line of JSON, and there is none");
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))) as Record<string, unknown>;
  const payload = bytes.subarray(end + 1);
  if (payload.length !== header.bytes || payload.length % 4)
    throw new Error(`the frame holds ${payload.length} bytes of weights. Its header says ${header.bytes}`);
  const row = new Float32Array(payload.length / 4);
  new Uint8Array(row.buffer).set(payload);
  return { header, row };
}
