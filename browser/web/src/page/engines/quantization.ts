// Real numbers to what a variant's own tensor stores, and back: real = (stored - zero_point) * scale.
// Source: https://ai.google.dev/edge/litert/models/quantization_spec. The results equal those of
// src/edgeloop/runtime/parity/quantization.py bit for bit.

import type { Tensor } from "../../npy";

/** Of the manifest's `io`. `scale` 0: the numbers are not scaled. */
export interface Quantization {
  dtype: string;
  scale: number;
  zero_point: number;
}

const STORED = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array };

type Stored = keyof typeof STORED;

const LIMITS: Record<Stored, [number, number]> = { int8: [-128, 127], uint8: [0, 255], int16: [-32768, 32767] };

/** Floats to `dtype`, rounded and clamped as the QUANTIZE operator does; anything else, and scale 0, unchanged. */
export function toStored(tensor: Tensor, { dtype, scale, zero_point }: Quantization): Tensor {
  if (!scale || !tensor.dtype.startsWith("float")) return tensor;
  if (!isStored(dtype))
    throw new Error(`the variant stores an input as ${dtype}. Expected one of ${Object.keys(STORED).join(", ")}`);
  const [low, high] = LIMITS[dtype];
  const step = Math.fround(scale);
  const data = new STORED[dtype](tensor.data.length);
  // in float32, as the kernel divides: a wider quotient falls on the other side of a half now and then
  for (let i = 0; i < data.length; i++) {
    const whole = halfToEven(Math.fround(Math.fround(Number(tensor.data[i])) / step)) + zero_point;
    data[i] = Math.min(high, Math.max(low, whole));
  }
  return { shape: tensor.shape, dtype, data };
}

/** Stored integers to float32; floats, and integers that have no scale, unchanged. */
export function toReal(tensor: Tensor, { scale, zero_point }: Quantization): Tensor {
  if (!scale || tensor.dtype.startsWith("float")) return tensor;
  const data = Float32Array.from(
    tensor.data as ArrayLike<number | bigint>,
    (stored) => (Number(stored) - zero_point) * scale,
  );
  return { shape: tensor.shape, dtype: "float32", data };
}

const isStored = (dtype: string): dtype is Stored => Object.hasOwn(STORED, dtype);

function halfToEven(value: number): number {
  const up = Math.round(value); // halves towards plus infinity
  return up - value === 0.5 && up % 2 ? up - 1 : up;
}
