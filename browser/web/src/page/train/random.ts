// Random numbers that follow from a seed, so that a training can be repeated.
// Source: sfc32 of PractRand (https://pracrand.sourceforge.net), public domain; mixing as in MurmurHash3's finalizer

/** Numbers from 0 up to 1. */
export function generator(seed: readonly number[]): () => number {
  let mixed = 0x9e3779b9;
  for (const one of seed) mixed = mix(mixed ^ mix(one));
  let [a, b, c, d] = [mixed, mix(mixed ^ 1), mix(mixed ^ 2), 1];
  const next = (): number => {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    return (t >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 12; i++) next();
  return next;
}

/** The numbers 0 to count - 1 in a random order (Fisher and Yates). */
export function permutation(count: number, random: () => number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
