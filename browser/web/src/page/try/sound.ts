// A sound as samples from -1 to 1: as many as the model takes, in the input's own numbers, and as a picture.

import { arrayOf, LIMITS, type Tensor } from "../../npy";
import type { TensorSpec } from "../bundle";

/** The mean of the channels. */
export function mixed(channels: Float32Array[]): Float32Array {
  return Float32Array.from(channels[0]!, (_, i) => channels.reduce((sum, one) => sum + one[i]!, 0) / channels.length);
}

/** As many samples as the model takes: the loudest stretch of a longer sound, a shorter one followed by silence. */
export function fit(samples: Float32Array, length: number): Float32Array {
  const fitted = new Float32Array(length);
  fitted.set(samples.subarray(0, length));
  if (samples.length <= length) return fitted;
  let energy = fitted.reduce((sum, one) => sum + one ** 2, 0);
  let [best, start] = [energy, 0];
  for (let i = length; i < samples.length; i++) {
    energy += samples[i]! ** 2 - samples[i - length]! ** 2;
    if (energy > best) [best, start] = [energy, i - length + 1];
  }
  return samples.slice(start, start + length);
}

/** Samples from -1 to 1 in the input's own numbers: 16-bit steps where its range is wider than 2, and in whole numbers of
 * less than 16 bits the steps that these have; silence is the middle of a type without negative numbers. */
export function soundTensor(samples: Float32Array, { dtype, range }: TensorSpec, shape: number[]): Tensor {
  const [low, high] = LIMITS[dtype] ?? (range && Math.max(...range.map(Math.abs)) > 2 ? [-32768, 32767] : [-1, 1]);
  const zero = low < 0 ? 0 : Math.ceil(high / 2);
  const scale = Math.min(32767, high - zero);
  const values = Array.from(samples, (sample) =>
    dtype.startsWith("float") ? sample * scale : Math.round(zero + sample * scale),
  );
  return { shape: [1, ...shape], dtype: dtype as Tensor["dtype"], data: arrayOf(dtype, values) };
}

/** The wave from -1 to 1: for each column of the canvas, the span of its samples. */
export function paintWave(canvas: HTMLCanvasElement, samples: Float32Array): void {
  const { width, height } = canvas;
  const context = canvas.getContext("2d")!;
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  for (let x = 0; x < width; x++) {
    const part = samples.subarray(
      Math.floor((x / width) * samples.length),
      Math.ceil(((x + 1) / width) * samples.length),
    );
    const [low, high] = [part.reduce((a, b) => Math.min(a, b), 1), part.reduce((a, b) => Math.max(a, b), -1)];
    context.fillRect(x, ((1 - high) / 2) * height, 1, Math.max(1, ((high - low) / 2) * height));
  }
}
